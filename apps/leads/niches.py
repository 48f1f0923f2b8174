"""What people call a kind of business -> OpenStreetMap tags. Pure."""

from __future__ import annotations

import re
import unicodedata

Tag = tuple[str, str]

NICHES: dict[str, tuple[Tag, ...]] = {
    "bakery": (("shop", "bakery"), ("shop", "pastry")),
    "butcher": (("shop", "butcher"),),
    "supermarket": (("shop", "supermarket"),),
    "convenience store": (("shop", "convenience"),),
    "delicatessen": (("shop", "deli"), ("shop", "cheese")),
    "chocolatier": (("shop", "chocolate"), ("shop", "confectionery")),
    "wine shop": (("shop", "wine"), ("shop", "alcohol")),
    "restaurant": (("amenity", "restaurant"),),
    "fast food": (("amenity", "fast_food"),),
    "cafe": (("amenity", "cafe"),),
    "bar": (("amenity", "bar"), ("amenity", "pub")),
    "ice cream": (("amenity", "ice_cream"), ("shop", "ice_cream")),
    "hotel": (("tourism", "hotel"), ("tourism", "motel")),
    "guest house": (("tourism", "guest_house"), ("tourism", "apartment"), ("tourism", "chalet")),
    "camp site": (("tourism", "camp_site"),),
    "hairdresser": (("shop", "hairdresser"),),
    "beauty salon": (("shop", "beauty"), ("shop", "cosmetics")),
    "pharmacy": (("amenity", "pharmacy"),),
    "optician": (("shop", "optician"),),
    "dentist": (("amenity", "dentist"), ("healthcare", "dentist")),
    "physiotherapist": (("healthcare", "physiotherapist"),),
    "veterinary": (("amenity", "veterinary"),),
    "gym": (("leisure", "fitness_centre"),),
    "florist": (("shop", "florist"),),
    "garden centre": (("shop", "garden_centre"),),
    "clothes shop": (("shop", "clothes"),),
    "shoe shop": (("shop", "shoes"),),
    "jeweller": (("shop", "jewelry"),),
    "toy shop": (("shop", "toys"),),
    "book shop": (("shop", "books"), ("shop", "newsagent")),
    "bicycle shop": (("shop", "bicycle"),),
    "car dealer": (("shop", "car"),),
    "car repair": (("shop", "car_repair"), ("craft", "car_repair")),
    "petrol station": (("amenity", "fuel"),),
    "hardware store": (("shop", "doityourself"), ("shop", "hardware"), ("shop", "trade")),
    "furniture shop": (("shop", "furniture"), ("shop", "interior_decoration"), ("shop", "houseware")),
    "electronics shop": (("shop", "electronics"), ("shop", "computer"), ("shop", "mobile_phone")),
    "sports shop": (("shop", "sports"), ("shop", "outdoor")),
    "electrician": (("craft", "electrician"),),
    "plumber": (("craft", "plumber"), ("craft", "hvac")),
    "carpenter": (("craft", "carpenter"), ("craft", "joiner")),
    "painter": (("craft", "painter"),),
    "roofer": (("craft", "roofer"),),
    "photographer": (("craft", "photographer"), ("shop", "photo")),
    "bank": (("amenity", "bank"),),
    "lawyer": (("office", "lawyer"), ("office", "notary")),
    "accountant": (("office", "accountant"), ("office", "tax_advisor")),
    "estate agent": (("office", "estate_agent"),),
    "insurance": (("office", "insurance"),),
    "travel agency": (("shop", "travel_agency"), ("office", "travel_agent")),
    "employment agency": (("office", "employment_agency"),),
    "cinema": (("amenity", "cinema"),),
    "driving school": (("amenity", "driving_school"),),
}

SYNONYMS = {
    "baker": "bakery",
    "boulangerie": "bakery",
    "bakkerij": "bakery",
    "boucherie": "butcher",
    "slager": "butcher",
    "grocery": "supermarket",
    "deli": "delicatessen",
    "chocolate": "chocolatier",
    "bistro": "restaurant",
    "snack": "fast food",
    "friterie": "fast food",
    "coffee shop": "cafe",
    "pub": "bar",
    "bed and breakfast": "guest house",
    "hair salon": "hairdresser",
    "coiffeur": "hairdresser",
    "kapper": "hairdresser",
    "barber": "hairdresser",
    "beauty": "beauty salon",
    "chemist": "pharmacy",
    "pharmacie": "pharmacy",
    "vet": "veterinary",
    "fitness": "gym",
    "flower shop": "florist",
    "fleuriste": "florist",
    "boutique": "clothes shop",
    "fashion": "clothes shop",
    "bike shop": "bicycle shop",
    "garage": "car repair",
    "gas station": "petrol station",
    "diy": "hardware store",
    "furniture": "furniture shop",
    "attorney": "lawyer",
    "real estate": "estate agent",
    "realtor": "estate agent",
}

_TAG = re.compile(r"([a-z_:]{1,40})=([a-z0-9_;:-]{1,60})")


class UnknownNiche(ValueError):
    """No tags are known for it."""


def tags_for(niche: str) -> tuple[Tag, ...]:
    """The tags that businesses of a niche have, one of them each.

    Args:
        niche: A name from the list in any case, singular or plural, a synonym, or a tag: `shop=bakery`.
    Raises:
        UnknownNiche: with what is known.
    """
    wanted = plain(niche)
    if tag := _TAG.fullmatch(niche.strip().lower()):
        return ((tag[1], tag[2]),)
    for word in _singulars(wanted):
        found = NICHES.get(SYNONYMS.get(word, word))
        if found is not None:
            return found
    raise UnknownNiche(f"niche {niche!r} is unknown; next: a tag such as shop=bakery, or one of: {', '.join(NICHES)}")


def plain(text: str) -> str:
    """For comparing: small letters, no accents, single spaces, no punctuation."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return " ".join(re.sub(r"[\W_]+", " ", letters).split())


def _singulars(word: str) -> list[str]:
    found = [word]
    if word.endswith("ies"):
        found.append(f"{word[:-3]}y")
    if word.endswith("es"):
        found.append(word[:-2])
    if word.endswith("s"):
        found.append(word[:-1])
    return found
