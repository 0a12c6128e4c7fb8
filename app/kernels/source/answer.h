/* The items of an answer: [{"item_id":"20","score":0.1321},...], ids copied as they stood in the request. */

static const double POWERS[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13};
enum { LEAST_DIGITS = 6, MOST_DIGITS = 9, MAX_NUMBER = 24, AROUND_ID = 12, AROUND_SCORE = 12 };

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
            int64_t whole = (int64_t)((double)p * POWERS[places] + 0.5);
            if ((float)((double)whole / POWERS[places]) != p) continue;
            while (whole % 10 == 0) whole /= 10, places--;
            *out++ = '0', *out++ = '.';
            for (int place = places - 1; place >= 0; place--, whole /= 10) out[place] = (char)('0' + whole % 10);
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
