"""What a configuration costs in memory and time on some machine, before anything is started."""
