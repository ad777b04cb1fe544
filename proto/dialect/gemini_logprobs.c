/* Gemini's logprobsResult and the neutral form of log probabilities, which is OpenAI's: a list of {token, logprob,
 * bytes, top_logprobs}. Gemini has the chosen tokens and the top ones in two lists of one length. */
#include "proto/dialect/gemini.h"

static void write_candidate(struct json_writer *w, const struct json *j, int t, struct arena *arena, bool open) {
    int p = gemini_get(j, t, "logProbability");
    struct slice token = json_str(j, gemini_get(j, t, "token"), arena);
    jw_object(w);
    common_member(w, "token", token);
    jw_key(w, "logprob");
    jw_raw(w, json_is(j, p, JSON_NUMBER) ? json_raw(j, p) : SLICE("0"));
    jw_key(w, "bytes"); /* Responses' types know no null here */
    jw_array(w);
    for (size_t i = 0; i < token.len; i++)
        jw_u64(w, (unsigned char)token.ptr[i]);
    jw_end_array(w);
    if (!open)
        jw_end_object(w);
}

struct slice gemini_read_logprobs(const struct json *j, int result, struct arena *arena) {
    int chosen = gemini_get(j, result, "chosenCandidates"), tops = gemini_get(j, result, "topCandidates");
    int top = json_items(j, tops);
    struct buf b;
    struct json_writer w;
    if (!json_is(j, chosen, JSON_ARRAY) || json_first(j, chosen) < 0)
        return SLICE_NONE;
    buf_init(&b, arena->pages, 4 << 20);
    jw_init(&w, &b);
    jw_array(&w);
    for (int t = json_first(j, chosen); t >= 0; t = json_next(j, chosen, t)) {
        int list = gemini_get(j, top, "candidates");
        write_candidate(&w, j, t, arena, true);
        jw_key(&w, "top_logprobs");
        jw_array(&w);
        for (int c = json_items(j, list); c >= 0; c = json_next(j, list, c))
            write_candidate(&w, j, c, arena, false);
        jw_end_array(&w);
        jw_end_object(&w);
        top = top >= 0 ? json_next(j, tops, top) : -1;
    }
    jw_end_array(&w);
    struct slice list = w.failed ? SLICE_NONE : arena_copy(arena, buf_slice(&b));
    buf_release(&b);
    return list;
}

static void put_candidate(struct json_writer *w, const struct json *j, int t, struct arena *arena) {
    int p = json_get(j, t, "logprob");
    jw_object(w);
    common_member(w, "token", json_str(j, json_get(j, t, "token"), arena));
    jw_key(w, "logProbability");
    jw_raw(w, json_is(j, p, JSON_NUMBER) ? json_raw(j, p) : SLICE("0"));
    jw_end_object(w);
}

void gemini_write_logprobs(struct json_writer *w, struct slice list, struct arena *arena) {
    struct json j;
    if (!json_parse(&j, arena, list.ptr, list.len) || !json_is(&j, 0, JSON_ARRAY))
        return;
    jw_key(w, "logprobsResult");
    jw_object(w);
    jw_key(w, "topCandidates");
    jw_array(w);
    for (int t = json_first(&j, 0); t >= 0; t = json_next(&j, 0, t)) {
        int tops = json_get(&j, t, "top_logprobs");
        jw_object(w);
        jw_key(w, "candidates");
        jw_array(w);
        for (int c = json_items(&j, tops); c >= 0; c = json_next(&j, tops, c))
            put_candidate(w, &j, c, arena);
        jw_end_array(w);
        jw_end_object(w);
    }
    jw_end_array(w);
    jw_key(w, "chosenCandidates");
    jw_array(w);
    for (int t = json_first(&j, 0); t >= 0; t = json_next(&j, 0, t))
        put_candidate(w, &j, t, arena);
    jw_end_array(w);
    jw_end_object(w);
}
