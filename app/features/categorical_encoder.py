"""`CategoricalEncoder`: encodes one category to one slot, a value or a whole column at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from app.errors import EncodingError
from app.features.columns import Column
from app.features.fields import Categorical, MissingWords, MultiCategorical
from app.features.slots import EMPTY_KEY, MISSING_MARK, VALUE_MARK, FieldSlots, Keys, Slots, slot_key
from app.features.values import INT64_MAX, READINGS, RESPELLED, Reading


class CategoricalEncoder:
    """Encodes one category to one slot: the hash of its space and canonical text, with value 1.0."""

    def __init__(self, field: Categorical | MultiCategorical, missing: MissingWords = (), reading: Reading = 2) -> None:
        self.name = field.name
        self._spell = READINGS[reading]
        self._words = frozenset(self._spell(word, field.name) for word in missing)
        self._prefix = (field.space_name + VALUE_MARK).encode()
        self._missing: FieldSlots = ((slot_key(field.name + MISSING_MARK),), (1.0,))
        self.absent: FieldSlots = self._missing
        """Slots of an empty value: those of the declared default or, without one, the "missing" slots."""

    def key(self, value: object) -> int:
        """Hash one category. Raises EncodingError if it is not a string, number or boolean."""
        # Nearly every text is spelled as it is, which is found without a call: the hottest line of the encoder.
        text: str
        if value.__class__ is str and "." not in value and "+" not in value and value not in RESPELLED:
            text = value
        else:
            text = self._spell(value, self.name)
        try:
            digest: int = xxh3_64_intdigest(self._prefix + text.encode())
        except UnicodeEncodeError:
            raise EncodingError(self.name, "text must be valid Unicode, without lone surrogates") from None
        return digest if digest <= INT64_MAX else digest - 2**64

    def keys(self, values: Sequence[object]) -> Keys:
        """Hash D categories to keys [D], 0 for missing ones. Raises EncodingError if one fits no slot."""
        spell, name, words = self._spell, self.name, self._words
        texts = [
            value  # as in `key`
            if value.__class__ is str and "." not in value and "+" not in value and value not in RESPELLED
            else ("" if value is None else spell(value, name))
            for value in values
        ]
        if words:
            texts = ["" if text in words else text for text in texts]
        try:
            blobs = map(str.encode, map(self._prefix.decode().__add__, texts))
            keys_D = np.frombuffer(b"".join(map(xxh3_64_digest, blobs)), ">i8").astype(np.int64)
        except UnicodeEncodeError:
            raise EncodingError(self.name, "text must be valid Unicode, without lone surrogates") from None
        return np.where(np.fromiter(map(bool, texts), np.bool_, len(texts)), keys_D, EMPTY_KEY)

    def encode(self, value: object) -> FieldSlots:
        """Encode one value that is neither None nor empty. Raises EncodingError if it fits no slot."""
        if self._words and self._is_missing(value):
            return self.absent
        return (self.key(value),), (1.0,)

    def encode_column(self, column: Column, absent: FieldSlots) -> Slots | None:
        """Encode a column to slots [N, width], or return None if it must be encoded value by value.

        Args:
            absent: the slots of a missing value.
        """
        values, codes_N = column.distinct()
        try:
            keys_D = self.keys(values)
        except EncodingError:
            return None
        keys_D[keys_D == EMPTY_KEY] = absent[0][0]
        return Slots(keys_D[codes_N, None], np.ones((len(codes_N), 1), np.float32))

    def missing(self) -> FieldSlots:
        """Return the slots that stand for a missing value, whatever the default."""
        return self._missing

    def _is_missing(self, value: object) -> bool:
        if value is None or value == "" or not self._words:
            return value is None or value == ""
        try:
            return self._spell(value, self.name) in self._words
        except EncodingError:
            return False  # which is said where the value is needed
