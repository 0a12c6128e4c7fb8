/* SipHash-1-3 (Aumasson and Bernstein 2012) with a key of the process: who sends ids cannot choose which of them collide.
   0 is kept free: it stands for an id that was not hashed, and for an empty slot. */

#define ROTATED(x, bits) (((x) << (bits)) | ((x) >> (64 - (bits))))
#define SIP_ROUND                                                                                                      \
    a += b, c += d, b = ROTATED(b, 13), d = ROTATED(d, 16), b ^= a, d ^= c, a = ROTATED(a, 32);                        \
    c += b, a += d, b = ROTATED(b, 17), d = ROTATED(d, 21), b ^= c, d ^= a, c = ROTATED(c, 32)

/* `readable` bytes may be read, of which `size` are the id. */
static inline uint64_t hashed(const uint8_t *text, uint64_t size, uint64_t readable, const uint64_t *key_2) {
    uint64_t a = key_2[0] ^ 0x736f6d6570736575, b = key_2[1] ^ 0x646f72616e646f6d;
    uint64_t c = key_2[0] ^ 0x6c7967656e657261, d = key_2[1] ^ 0x7465646279746573;
    uint64_t word, last = size << 56;
    for (; size >= 8; text += 8, size -= 8, readable -= 8) {
        memcpy(&word, text, 8);
        d ^= word;
        SIP_ROUND;
        a ^= word;
    }
    if (readable >= 8) { /* nearly always: more of the request follows */
        memcpy(&word, text, 8);
        last |= word & ((1ull << (8 * size)) - 1);
    } else {
        for (uint64_t place = 0; place < size; place++) last |= (uint64_t)text[place] << (8 * place);
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
