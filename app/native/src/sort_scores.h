/* From logits to calibrated probabilities in descending order. */

/* Return a number whose ascending order is the descending order of floats, with NaN before all. */
static inline uint32_t key_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return 0;
    return bits >> 31 ? bits : ~bits & 0x7fffffff;
}

static inline float float_of_key(uint32_t key) {
    float x;
    uint32_t bits = key >> 31 ? key : ~key & 0x7fffffff;
    if (!key) return __builtin_nanf("");
    memcpy(&x, &bits, 4);
    return x;
}

/* Write sigmoid(scale logit + offset), highest first, and the position that each had. Ties keep their order and NaN comes
   first. It is a radix sort of (score, position) pairs, byte by byte; a byte that all scores share is skipped. */
static void sort_scores(const float *logit_N, int64_t n, float scale, float offset, uint64_t *pair_2N, float *score_N,
                        int64_t *position_N) {
    uint64_t *from = pair_2N, *to = pair_2N + n;
    uint32_t counts[4][256] = {{0}};
    for (int64_t i = 0; i < n; i++) {
        uint32_t key = key_of_float(1.0f / (1.0f + expf(-(scale * logit_N[i] + offset))));
        from[i] = (uint64_t)key << 32 | (uint64_t)i;
        for (int byte = 0; byte < 4; byte++) counts[byte][key >> (8 * byte) & 0xff]++;
    }
    for (int byte = 0; byte < 4; byte++) {
        int shift = 32 + 8 * byte;
        if (counts[byte][from[0] >> shift & 0xff] == (uint32_t)n) continue;
        uint32_t sum = 0;
        for (int digit = 0; digit < 256; digit++) {
            uint32_t count = counts[byte][digit];
            counts[byte][digit] = sum;
            sum += count;
        }
        for (int64_t i = 0; i < n; i++) to[counts[byte][from[i] >> shift & 0xff]++] = from[i];
        uint64_t *swapped = from;
        from = to;
        to = swapped;
    }
    for (int64_t i = 0; i < n; i++) {
        score_N[i] = float_of_key((uint32_t)(from[i] >> 32));
        position_N[i] = (int64_t)(from[i] & 0xffffffff);
    }
}
