/* SipHash-1-3 (Aumasson and Bernstein 2012) with a key that each process draws: a sender of ids cannot choose ids that
   collide. The hash 0 is never given: it stands for an id without a hash, and for an empty entry of the index. */

#define ROTATE_LEFT(x, bits) (((x) << (bits)) | ((x) >> (64 - (bits))))
#define SIP_ROUND                                                                                                      \
    a += b, c += d, b = ROTATE_LEFT(b, 13), d = ROTATE_LEFT(d, 16), b ^= a, d ^= c, a = ROTATE_LEFT(a, 32);            \
    c += b, a += d, b = ROTATE_LEFT(b, 17), d = ROTATE_LEFT(d, 21), b ^= c, d ^= a, c = ROTATE_LEFT(c, 32)

/* Hash the first `size` of `readable` bytes. */
static inline uint64_t siphash(const uint8_t *text, uint64_t size, uint64_t readable, const uint64_t *key_2) {
    uint64_t a = key_2[0] ^ 0x736f6d6570736575, b = key_2[1] ^ 0x646f72616e646f6d;
    uint64_t c = key_2[0] ^ 0x6c7967656e657261, d = key_2[1] ^ 0x7465646279746573;
    uint64_t word, last = size << 56;
    for (; size >= 8; text += 8, size -= 8, readable -= 8) {
        memcpy(&word, text, 8);
        d ^= word;
        SIP_ROUND;
        a ^= word;
    }
    if (readable >= 8) { /* nearly always, because more of the request follows */
        memcpy(&word, text, 8);
        last |= word & ((1ull << (8 * size)) - 1);
    } else {
        for (uint64_t i = 0; i < size; i++) last |= (uint64_t)text[i] << (8 * i);
    }
    d ^= last;
    SIP_ROUND;
    a ^= last;
    c ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    uint64_t hash = a ^ b ^ c ^ d;
    return hash ? hash : 1;
}

/* Return the hash of one id. */
EXPORT uint64_t ctr_hash_id(const uint8_t *text, int64_t size, const uint64_t *key_2) {
    return siphash(text, (uint64_t)size, (uint64_t)size, key_2);
}
