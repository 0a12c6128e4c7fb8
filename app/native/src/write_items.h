/* The items of an answer: [{"item_id":"20","score":0.1321},...], ids copied as they stood in the request. */

static const double POWERS[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13};
enum { LEAST_DIGITS = 7, MOST_DIGITS = 9, MAX_NUMBER = 24, AROUND_ID = 12, AROUND_SCORE = 12 };

static const char TWO_DIGITS[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
                                 "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
                                 "9899";

static char *put(char *out, const char *text, int64_t size) {
    memcpy(out, text, (size_t)size);
    return out + size;
}

/* A probability in the fewest digits that are read as the same float32. */
static char *put_score(char *out, float p) {
    if (p >= 1e-4f && p < 1.0f) {
        int places = LEAST_DIGITS;
        for (double first = 0.1; (double)p < first; first /= 10) places++;
        for (int digits = LEAST_DIGITS; digits <= MOST_DIGITS; digits++, places++) {
            uint32_t whole = (uint32_t)((double)p * POWERS[places] + 0.5);
            if ((float)((double)whole / POWERS[places]) != p) continue;
            while (whole % 10 == 0) whole /= 10, places--;
            *out++ = '0', *out++ = '.';
            int place = places;
            for (; place >= 2; place -= 2, whole /= 100) memcpy(out + place - 2, TWO_DIGITS + 2 * (whole % 100), 2);
            if (place) *out = (char)('0' + whole);
            return out + places;
        }
    }
    if (p == 0.0f || p == 1.0f) return put(out, p == 0.0f ? "0.0" : "1.0", 3);
    int size = 0;
    for (int digits = 1; digits <= MOST_DIGITS; digits++) {
        size = snprintf(out, MAX_NUMBER, "%.*g", digits, (double)p);
        if (strtof(out, 0) == p) break;
    }
    return out + size;
}

/* Room that K items need at most. */
EXPORT int64_t ctr_items_room(const int32_t *begin_N, const int32_t *end_N, const int64_t *place_K, int64_t k) {
    int64_t room = 2;
    for (int64_t i = 0; i < k; i++) room += end_N[place_K[i]] - begin_N[place_K[i]];
    return room + k * (AROUND_ID + AROUND_SCORE + MAX_NUMBER);
}

/* Writes K items; returns the bytes written. */
EXPORT int64_t ctr_put_items(const char *text, const int32_t *begin_N, const int32_t *end_N, const int64_t *place_K,
                             const float *score_K, int64_t k, char *out) {
    char *start = out;
    *out++ = '[';
    for (int64_t i = 0; i < k; i++) {
        if (i) *out++ = ',';
        out = put(out, "{\"item_id\":\"", AROUND_ID);
        out = put(out, text + begin_N[place_K[i]], end_N[place_K[i]] - begin_N[place_K[i]]);
        out = put(out, "\",\"score\":", 10);
        out = put_score(out, score_K[i]);
        *out++ = '}';
    }
    *out++ = ']';
    return out - start;
}
