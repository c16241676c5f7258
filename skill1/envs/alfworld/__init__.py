"""ALFWorld: a native text engine, the game folders it plays, and the real package as a second engine."""
