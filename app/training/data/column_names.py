"""Read the names of columns: which words they have, and what those say."""

from __future__ import annotations

import re
from enum import Enum

TIME_WORDS = {"time", "timestamp", "ts", "date", "datetime", "day", "created", "at", "epoch", "clock"}
USER_WORDS = {
    "user", "u", "uid", "visitor", "customer", "member", "device", "session", "client", "person", "viewer", "ip",
    "cookie", "account", "buyer", "shopper", "reader", "listener", "subscriber", "household", "idfa", "gaid", "usr",
    "userid", "memberid", "msno", "nick", "consumer", "guest", "player", "patient", "student", "passenger", "rider",
}  # fmt: skip
ITEM_WORDS = {
    "item", "i", "iid", "movie", "film", "product", "ad", "ads", "article", "video", "creative", "campaign", "song",
    "track", "book", "news", "doc", "document", "sku", "listing", "hotel", "offer", "banner", "app", "store", "artist",
    "album", "game", "recipe", "restaurant", "business", "venue", "poi", "photo", "prod",
    "itm", "goods", "asin", "isbn", "ean", "upc", "adgroup", "adset", "adunit", "commodity", "show", "episode",
    "post", "job", "course", "deal", "coupon", "material",
}  # fmt: skip
CARRIED_WORDS = {"device", "session", "client", "ip", "cookie", "app", "store"}
"""Name whom rows are about where nothing better does, and else what a person comes with this time."""
REQUEST_WORDS = {"session", "impression", "request", "visit", "row", "index", "event", "query", "log", "record"}
"""These count what happens, and not those whom it happens to."""
CODE_WORDS = {
    "id", "code", "zip", "zipcode", "postcode", "type", "category", "cat", "class", "kind", "group", "segment", "brand",
    "genre", "country", "city", "region", "state", "hour", "weekday", "dow", "month", "gender", "sex", "os", "browser",
    "occupation", "hash", "uuid", "guid", "domain", "model", "isp", "carrier", "language", "lang", "locale", "channel",
    "status", "bucket", "cluster", "label", "version",
}  # fmt: skip
QUANTITY_WORDS = {
    "count", "counts", "cnt", "num", "number", "nb", "price", "cost", "amount", "fee", "income", "salary", "revenue",
    "balance", "budget", "bid", "age", "year", "years", "score", "rating", "avg", "average", "mean", "median", "std",
    "stddev", "min", "max", "sum", "total", "duration", "length", "len", "size", "width", "height", "depth", "distance",
    "lat", "latitude", "lon", "lng", "longitude", "weight", "percent", "percentage", "pct", "ratio", "rate", "ctr",
    "clicks", "views", "likes", "visits", "purchases", "orders", "impressions", "days", "hours", "minutes", "seconds",
    "secs", "ms", "temperature", "temp", "humidity", "elapsed", "since", "recency", "frequency", "discount",
    "quantity", "qty", "stock", "population", "pages", "words", "bytes", "volume", "speed", "area", "popularity",
}  # fmt: skip


ID_ENDINGS = {"id", "ids", "key", "no", "nr", "number", "code", "hash", "uuid", "guid", "idx", "sk", "pk"}
AD_PARTS = {"group", "set", "unit", "campaign", "creative"}
"""What follows `ad` in the name of a kind of advertisement: `ad_group_id`."""

TRANSLATED = {
    "用户": "user_", "会员": "user_", "商品": "item_", "物品": "item_", "广告": "ad_", "点击": "click",
    "价格": "price", "时间": "time", "年龄": "age", "性别": "gender", "类目": "category", "类别": "category",
    "品牌": "brand", "城市": "city",
}  # fmt: skip
"""Words of other scripts that columns of public click data have."""
RECBOLE_TYPE = re.compile(r":(?:token|float)(?:_seq)?$")


def plain_name(name: str) -> str:
    """Return a name without the type that RecBole's files add, and with the words of other scripts translated."""
    name = RECBOLE_TYPE.sub("", name)
    if name.isascii():
        return name
    for word, translated in TRANSLATED.items():
        name = name.replace(word, translated)
    return name.strip("_ ")


class NamedKind(Enum):
    """What a name says of whole numbers: that they name something, or that they count or measure it."""

    CODE = "code"
    QUANTITY = "quantity"


def words_of(name: str) -> list[str]:
    """Split a name: `userRatedMovie12` and `user_rated_movie_12` are user, rated, movie; `userid` is user, id."""
    words: list[str] = []
    for found in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", plain_name(name)):
        word = found.lower()
        stem = word.removesuffix("id")
        words += [stem, "id"] if stem != word and len(stem) > 1 and stem in USER_WORDS | ITEM_WORDS else [word]
    return words


def named_kind(name: str) -> NamedKind | None:
    """Return what the last telling word of a name says: `city_population` is a quantity, `price_group` a code."""
    for word in reversed(words_of(name)):
        if word in QUANTITY_WORDS:
            return NamedKind.QUANTITY
        if word in CODE_WORDS:
            return NamedKind.CODE
    return None


def is_id_name(name: str, words: set[str]) -> bool:
    """Tell whether a column is named like the id of one of these words: `user_id`, `userId`, `uid`, `user_key`."""
    parts = words_of(name)
    if not parts or parts[0] not in words:
        return False
    if len(parts) == 3 and parts[0] in ("ad", "ads") and parts[1] in AD_PARTS:
        parts = [parts[0], parts[2]]
    return (len(parts) == 2 and parts[1] in ID_ENDINGS) or (len(parts) == 1 and len(parts[0]) > 1)
