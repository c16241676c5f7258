"""What generated catalogues are made of: kinds of product, their attributes, options and prices. Own words throughout.

No option value has a colour word inside another word, so that the reward recognises every value (see `reward`).
"""

from __future__ import annotations

from dataclasses import dataclass

_COLOURS = (
    "black", "white", "navy blue", "sage green", "charcoal grey", "dusty rose", "burgundy", "cream", "olive green",
    "sky blue", "rust", "lavender", "mustard yellow", "teal", "silver", "ivory", "coral pink", "dark brown",
)  # fmt: skip
_CLOTHES = ("x-small", "small", "medium", "large", "x-large", "xx-large")
_SHOES = ("6", "6.5", "7", "7.5", "8", "8.5", "9", "10", "11")
_WOODS = ("natural oak", "walnut", "espresso", "maple", "cherry", "matte black")
_PACKS = ("pack of 1", "pack of 2", "pack of 4", "pack of 6")
_FLUIDS = ("4 fl oz/118 ml", "8 fl oz/237 ml", "12 fl oz/355 ml", "16 fl oz/473 ml")


@dataclass(frozen=True, slots=True)
class Goods:
    """A kind of product. Attributes are by their place in a sentence: "<adjective> thing with <feature> for <use>"."""

    query: str  # what its products are collected by and named in instructions
    category: str
    breadcrumb: tuple[str, ...]
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    features: tuple[str, ...]
    uses: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    prices: tuple[float, float]  # dollars, lowest and highest

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.adjectives + self.features + self.uses


def _goods(
    query: str, path: str, nouns: str, adjectives: str, features: str, uses: str,
    options: dict[str, tuple[str, ...]], low: float, high: float,
) -> Goods:  # fmt: skip
    category, *breadcrumb = _list(path, ">")
    top = _DEPARTMENTS[category]
    texts = (tuple(_list(text, ",")) for text in (nouns, adjectives, features, uses))
    return Goods(query, category, (top, *breadcrumb), *texts, options, (low, high))


def _list(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


_DEPARTMENTS = {
    "fashion": "Clothing, Shoes & Jewelry",
    "garden": "Home & Kitchen",
    "electronics": "Electronics",
    "beauty": "Beauty & Personal Care",
    "grocery": "Grocery & Gourmet Food",
}

GOODS = (
    _goods(
        "men's shirts", "fashion > Men > Clothing > Shirts", "polo shirt, henley, flannel shirt, muscle tee",
        "machine washable, slim fit, moisture wicking, loose fit, quick drying, wrinkle free",
        "long sleeve, chest pocket, button closure, cotton spandex", "daily wear, gym workout",
        {"color": _COLOURS, "size": _CLOTHES}, 9, 46,
    ),
    _goods(
        "women's dresses", "fashion > Women > Clothing > Dresses", "wrap dress, maxi dress, shift dress, sweater dress",
        "hand wash, machine washable, loose fit, tummy hiding",
        "elastic waist, short sleeve, v neck, polyester spandex",
        "daily wear, beach holidays", {"color": _COLOURS, "size": _CLOTHES}, 17, 78,
    ),
    _goods(
        "women's boots", "fashion > Women > Shoes > Boots", "ankle boots, chelsea boots, riding boots, snow boots",
        "non slip, water resistant, wide fitting", "rubber sole, faux leather, memory foam, side zipper, arch support",
        "daily wear", {"color": _COLOURS[:9], "size": _SHOES}, 29, 145,
    ),
    _goods(
        "men's loafers", "fashion > Men > Shoes > Loafers & Slip-Ons", "penny loafers, boat shoes, canvas slip ons",
        "non slip, light weight, machine washable", "rubber outsole, genuine leather, memory foam, arch support",
        "daily wear, office days", {"color": _COLOURS[:8], "size": _SHOES}, 24, 118,
    ),
    _goods(
        "swimwear", "fashion > Women > Clothing > Swimwear", "one piece swimsuit, bikini set, tankini, rash guard",
        "quick drying, hand wash, high waisted", "tummy control, removable pads, tie back, nylon spandex",
        "sun protection, swimming laps", {"color": _COLOURS, "size": _CLOTHES}, 14, 62,
    ),
    _goods(
        "men's shorts", "fashion > Men > Clothing > Shorts", "running shorts, cargo shorts, chino shorts, swim trunks",
        "quick drying, relaxed fit, machine washable", "elastic waist, drawstring closure, zipper pocket, mesh liner",
        "gym workout, summer hikes",
        {"color": _COLOURS, "size": _CLOTHES, "inseam": ("5 in/13 cm", "7 in/18 cm", "9 in/23 cm")}, 12, 49,
    ),
    _goods(
        "backpacks", "fashion > Luggage & Travel Gear > Backpacks", "laptop backpack, rolltop backpack, day pack",
        "water resistant, anti theft, light weight, carry on",
        "usb port, padded straps, shoe compartment, quick release",
        "school days, business trips", {"color": _COLOURS[:10], "size": ("15 liter", "20 liter", "28 liter")}, 21, 112,
    ),
    _goods(
        "sofas", "garden > Furniture > Living Room Furniture > Sofas", "sectional sofa, loveseat, sleeper sofa, futon",
        "easy to assemble, mid century, stain proof, spot clean",
        "solid wood, faux leather, storage space, foam filling",
        "living room", {"color": _COLOURS[:9], "size": ("2 seats", "3 seats", "corner")}, 180, 970,
    ),
    _goods(
        "table lamps", "garden > Lighting & Ceiling Fans > Table Lamps", "bedside lamp, desk lamp, ceramic lamp",
        "mid century, energy efficient, dimmable", "usb port, touch control, clear glass, metal frame, linen shade",
        "living room, reading at night", {"color": (*_COLOURS[:7], "brass")}, 16, 125,
    ),
    _goods(
        "area rugs", "garden > Home Decor > Rugs, Pads & Protectors > Area Rugs", "shag rug, runner rug, jute rug",
        "easy clean, non slip, hand woven, fade proof, machine washable", "low pile, fringed edge, soft backing",
        "living room, dining room",
        {
            "color": _COLOURS,
            "size": ("2 ft x 3 ft", "3 ft x 5 ft", "5 ft x 8 ft"),
            "shape": ("round", "oval", "square"),
        },
        18, 265,
    ),
    _goods(
        "curtains", "garden > Home Decor > Window Treatments > Curtains",
        "blackout curtains, sheer panels, roman blind",
        "machine washable, thermal insulated, noise reducing, easy install",
        "rod pocket, cordless lift, silver grommets",
        "living room, baby rooms", {"color": _COLOURS[:12], "size": ("42 x 45 in", "52 x 63 in", "52 x 84 in")}, 13, 92,
    ),
    _goods(
        "console tables", "garden > Furniture > Living Room Furniture > Tables",
        "entry table, sofa table, hall console",
        "easy to assemble, water resistant, space saving", "solid wood, storage space, metal legs, tempered glass",
        "living room, narrow halls", {"color": _WOODS, "size": ("30 inch", "42 inch", "55 inch")}, 68, 430,
    ),
    _goods(
        "bed frames", "garden > Furniture > Bedroom Furniture > Beds", "platform bed, upholstered bed, canopy bed",
        "easy to assemble, heavy duty, noise free", "solid wood, box spring, steel slats, under bed storage",
        "guest rooms", {"color": _WOODS, "size": ("twin", "full", "queen", "king")}, 115, 650,
    ),
    _goods(
        "candles", "garden > Home Decor > Candles & Holders", "soy candle, pillar candle, votive set, jar candle",
        "long lasting, lead free, smoke free, hand poured", "soy wax, cotton wick, gift box", "relaxing evenings",
        {"scent": ("cedar smoke", "vanilla bean", "sea salt", "fig leaf", "unscented"), "size": ("4 ounce", "8 ounce")},
        8, 41,
    ),
    _goods(
        "storage cabinets", "garden > Furniture > Home Office Furniture > Cabinets", "file cabinet, pantry cupboard",
        "easy to assemble, heavy duty, wall mounted, soft close", "storage space, movable shelves, hidden lock",
        "home office", {"color": _WOODS}, 58, 340,
    ),
    _goods(
        "headphones", "electronics > Headphones > Over-Ear", "over ear headphones, wireless earbuds, gaming headset",
        "noise cancelling, hands free, water resistant, plug play", "stereo sound, fast charging, long battery life",
        "video calls", {"color": _COLOURS[:8]}, 18, 235,
    ),
    _goods(
        "hdmi cables", "electronics > Television & Video > Accessories > HDMI Cables", "hdmi cable, hdmi extender",
        "gold plated, high speed, ultra hd, plug play", "aluminum alloy, braided jacket, locking plug", "blu ray",
        {"size": ("3 feet", "6 feet", "10 feet", "25 feet"), "color": ("black", "white", "grey")}, 6, 49,
    ),
    _goods(
        "smartwatch bands", "electronics > Wearable Technology > Wristband Accessories", "watch band, watch strap",
        "quick release, easy install, water resistant", "stainless steel, breathable mesh, magnetic buckle",
        "small wrists", {"color": _COLOURS, "size": ("38mm", "40mm", "42mm", "44mm")}, 7, 39,
    ),
    _goods(
        "tablets", "electronics > Computers & Accessories > Tablets", "10 inch tablet, drawing tablet, kids tablet",
        "high definition, light weight, child proof", "quad core, dual camera, long battery life, tempered glass",
        "note taking", {"color": _COLOURS[:5], "style": ("32 gb", "64 gb", "128 gb")}, 72, 490,
    ),
    _goods(
        "security cameras", "electronics > Camera & Photo > Video Surveillance",
        "doorbell camera, dome camera, baby cam",
        "easy install, wall mounted, weather proof, 1080p hd", "motion detection, night vision, two way audio",
        "front doors", {"style": _PACKS[:3], "color": ("white", "black")}, 27, 265,
    ),
    _goods(
        "portable speakers", "electronics > Portable Audio & Video > Speakers", "bluetooth speaker, shower speaker",
        "water resistant, hands free, easy to carry, high power",
        "stereo sound, usb port, wireless pairing, long battery life",
        "pool parties", {"color": _COLOURS[:10]}, 15, 185,
    ),
    _goods(
        "phone cases", "electronics > Cell Phones & Accessories > Cases", "clear phone case, wallet case, rugged case",
        "non slip, heavy duty, shock absorbing, easy install",
        "wireless charging, glass screen, card holder, kickstand",
        "car mounts", {"color": _COLOURS, "size": ("compact", "regular", "plus", "max")}, 8, 43,
    ),
    _goods(
        "power banks", "electronics > Cell Phones & Accessories > Portable Chargers", "power bank, solar charger",
        "fast charging, high capacity, easy to carry", "usb port, led display, aluminum alloy, built in cable",
        "camping trips", {"color": _COLOURS[:6], "size": ("5000mah", "10000mah", "20000mah")}, 13, 88,
    ),
    _goods(
        "shampoo", "beauty > Hair Care > Shampoo & Conditioner",
        "repair shampoo, conditioner, scalp shampoo, hair mask",
        "sulfate free, paraben free, cruelty free", "argan oil, tea tree, rice water, shea butter",
        "damaged hair, dry hair, hair growth",
        {"size": _FLUIDS, "scent": ("coconut", "eucalyptus", "fragrance free", "citrus")}, 7, 41,
    ),
    _goods(
        "face care", "beauty > Skin Care > Face", "face serum, clay mask, night cream, cleansing balm",
        "fragrance free, cruelty free, oil free, anti aging", "hyaluronic acid, vitamin c, aloe vera",
        "sensitive skin, fine lines, dark circles", {"size": ("1 ounce", "1.7 ounce", "4 ounce")}, 9, 69,
    ),
    _goods(
        "makeup brushes", "beauty > Tools & Accessories > Makeup Brushes", "brush set, kabuki brush, blending brush",
        "easy clean, cruelty free, easy to carry", "synthetic hair, travel case, bamboo handle", "eye shadow",
        {"color": _COLOURS[:9], "style": ("5 pieces", "8 pieces", "12 pieces")}, 8, 53,
    ),
    _goods(
        "lip care", "beauty > Makeup > Lips", "lip balm, lip gloss, lip mask, matte lipstick",
        "long lasting, cruelty free, easy to apply, high pigment",
        "shea butter, coconut oil, natural ingredients, spf 30",
        "chapped lips", {"color": ("nude", "berry", "cherry", "peach", "plum", "clear")}, 4, 29,
    ),
    _goods(
        "hair extensions", "beauty > Hair Care > Hair Extensions & Wigs",
        "clip in extensions, ponytail, lace front wig",
        "heat friendly, high quality, easy to wear", "synthetic hair, natural hair, double weft", "hair salon",
        {"color": ("jet black", "ash blonde", "auburn", "dark brown"), "size": ("12 inch", "16 inch", "20 inch")},
        15, 165,
    ),
    _goods(
        "toothpaste", "beauty > Oral Care > Toothpaste", "whitening toothpaste, enamel toothpaste, kids toothpaste",
        "fluoride free, cruelty free, alcohol free", "coconut oil, tea tree, fresh breath, xylitol",
        "sensitive teeth, bad breath",
        {"flavor name": ("mint", "cinnamon", "bubble gum", "lemon"), "size": _PACKS}, 4, 27,
    ),
    _goods(
        "snack mixes", "grocery > Snack Foods > Nut & Seed Mixes", "trail mix, party mix, roasted nut mix, seed mix",
        "gluten free, non gmo, low sodium, plant based, dairy free", "resealable bag, high protein, no added sugar",
        "lunch boxes",
        {"flavor name": ("sea salt", "sweet chili", "honey roast", "ranch", "smoky bacon"), "size": _PACKS}, 6, 47,
    ),
    _goods(
        "tea", "grocery > Beverages > Tea", "green tea bags, herbal tea, loose leaf tea, chai blend",
        "caffeine free, usda organic, non gmo, sugar free, fair trade", "individual wrapping, real fruit, whole leaves",
        "cold brewing",
        {"flavor name": ("ginger lemon", "chamomile", "jasmine", "earl grey"), "size": ("20 count", "40 count")}, 5, 39,
    ),
    _goods(
        "nutrition bars", "grocery > Snack Foods > Bars", "protein bar, granola bar, breakfast bar",
        "gluten free, keto friendly, low sugar, plant based, soy free", "high protein, whole grains, grass fed whey",
        "long hikes",
        {"flavor name": ("peanut butter", "cookie dough", "berry crumble", "apple pie"), "size": _PACKS}, 7, 53,
    ),
    _goods(
        "coffee", "grocery > Beverages > Coffee", "ground coffee, whole bean coffee, instant coffee, cold brew pack",
        "fair trade, usda organic, low acid, single origin, shade grown", "medium roast, rich flavor, resealable bag",
        "espresso machines",
        {"flavor name": ("house blend", "hazelnut", "french vanilla", "toffee"), "size": ("10 ounce", "2 pound")},
        8, 45,
    ),
)  # fmt: skip
