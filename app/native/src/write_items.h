/* The items of an answer: [{"item_id":"20","score":0.1321},...], with propensities behind the first scores where there are. Ids are copied as they stand in the request. */

static const double POWERS[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13};
enum { MAX_POWER = 13, MIN_DIGITS = 7, MAX_FLOAT_DIGITS = 9, MAX_SCORE_BYTES = 24 };

static const char TWO_DIGITS[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
                                 "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
                                 "9899";
#define BEFORE_ID "{\"item_id\":\""
#define BEFORE_SCORE "\",\"score\":"
#define BEFORE_PROPENSITY ",\"propensity\":"
#define LENGTH(literal) ((int64_t)sizeof(literal) - 1)

static char *append(char *out, const char *text, int64_t size) {
    memcpy(out, text, (size_t)size);
    return out + size;
}

/* Append a probability from 1e-13 to 1e-4 as 1.25e-07, in the fewest digits that are read as the same float32. Return 0 if no
   digits are found. */
static char *append_small(char *out, float p) {
    int places = 5; /* behind the point, of the first digit */
    for (double first = 1e-5; (double)p < first; first /= 10) places++;
    for (int digits = 1; digits <= MAX_FLOAT_DIGITS; digits++) {
        int decimals = places + digits - 1;
        double power = decimals > MAX_POWER ? POWERS[decimals - MAX_POWER] * POWERS[MAX_POWER] : POWERS[decimals];
        uint32_t whole = (uint32_t)((double)p * power + 0.5);
        if ((float)((double)whole / power) != p) continue;
        char text[MAX_FLOAT_DIGITS + 2];
        int size = 0, shown = places;
        for (; whole; whole /= 10) text[size++] = (char)('0' + whole % 10);
        shown -= size - digits; /* 9.99...e-06 may have become 1e-05 */
        *out++ = text[--size];
        if (size) *out++ = '.';
        while (size) *out++ = text[--size];
        out = append(out, "e-", 2);
        return append(out, TWO_DIGITS + 2 * shown, 2);
    }
    return 0;
}

/* Append a probability in the fewest digits that are read as the same float32. */
static char *append_score(char *out, float p) {
    if (p >= 1e-4f && p < 1.0f) {
        int decimals = MIN_DIGITS + (p < 0.1) + (p < 0.01) + (p < 0.001);
        for (int digits = MIN_DIGITS; digits <= MAX_FLOAT_DIGITS; digits++, decimals++) {
            uint32_t whole = (uint32_t)((double)p * POWERS[decimals] + 0.5);
            if ((float)((double)whole / POWERS[decimals]) != p) continue;
            while (whole % 10 == 0) whole /= 10, decimals--;
            *out++ = '0', *out++ = '.';
            char text[12]; /* always filled: how many digits there are could not be foretold, which costs more than zeros */
            for (int left = 12; left; left -= 2, whole /= 100) memcpy(text + left - 2, TWO_DIGITS + 2 * (whole % 100), 2);
            memcpy(out, text + 12 - decimals, 12); /* what is behind the last digit is written over */
            return out + decimals;
        }
    }
    if (p == 0.0f || p == 1.0f) return append(out, p == 0.0f ? "0.0" : "1.0", 3);
    if (p >= 1e-13f && p < 1e-4f) {
        char *end = append_small(out, p);
        if (end) return end;
    }
    int size = 0;
    for (int digits = 1; digits <= MAX_FLOAT_DIGITS; digits++) {
        size = snprintf(out, MAX_SCORE_BYTES, "%.*g", digits, (double)p);
        if (strtof(out, 0) == p) break;
    }
    return out + size;
}

/* Return a bound of the bytes that ctr_write_items writes for the ids at K positions among those of the request, and so many
   propensities. */
EXPORT int64_t ctr_max_items_bytes(const int32_t *begin_N, const int32_t *end_N, const int64_t *position_K, int64_t k,
                                   int64_t propensities) {
    int64_t bytes = 2 + propensities * (LENGTH(BEFORE_PROPENSITY) + MAX_SCORE_BYTES);
    for (int64_t i = 0; i < k; i++) bytes += end_N[position_K[i]] - begin_N[position_K[i]];
    return bytes + k * (LENGTH(BEFORE_ID) + LENGTH(BEFORE_SCORE) + MAX_SCORE_BYTES + LENGTH("},"));
}

/* Write K items, the first of them with propensities. Return the number of bytes written. */
EXPORT int64_t ctr_write_items(const char *text, const int32_t *begin_N, const int32_t *end_N, const int64_t *position_K,
                               const float *score_K, const float *propensity_P, int64_t p, int64_t k, char *out) {
    char *start = out;
    *out++ = '[';
    for (int64_t i = 0; i < k; i++) {
        if (i) *out++ = ',';
        out = append(out, BEFORE_ID, LENGTH(BEFORE_ID));
        out = append(out, text + begin_N[position_K[i]], end_N[position_K[i]] - begin_N[position_K[i]]);
        out = append(out, BEFORE_SCORE, LENGTH(BEFORE_SCORE));
        out = append_score(out, score_K[i]);
        if (i < p) out = append_score(append(out, BEFORE_PROPENSITY, LENGTH(BEFORE_PROPENSITY)), propensity_P[i]);
        *out++ = '}';
    }
    *out++ = ']';
    return out - start;
}
