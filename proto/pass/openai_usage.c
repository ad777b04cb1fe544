/* prompt_tokens includes cached, cache-written and audio tokens; completion_tokens includes reasoning and audio: the
 * meters are disjoint, so the parts are taken out, clamped at zero (some vendors' parts exceed the whole). Where
 * total_tokens exceeds prompt + completion the difference is hidden output (xAI's reasoning, Gemini's thoughts through
 * its compatible endpoint), but for Mistral's audio input, which only the total and the details name. DeepSeek names
 * cache hits beside the details. */
#include "proto/pass/openai_usage.h"

#include <string.h>

static uint64_t count(const struct json *j, int object, const char *name) {
    uint64_t v = 0;
    return json_u64(j, json_get(j, object, name), &v) ? v : 0;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

bool openai_usage_read(const struct json *j, int usage, struct meters *m) {
    uint64_t prompt, completion;
    bool has_prompt = json_u64(j, json_get(j, usage, "prompt_tokens"), &prompt);
    bool has_completion = json_u64(j, json_get(j, usage, "completion_tokens"), &completion);
    if (!has_prompt && !has_completion)
        return false;
    prompt = has_prompt ? prompt : 0;
    completion = has_completion ? completion : 0;
    int in = json_get(j, usage, "prompt_tokens_details"), out = json_get(j, usage, "completion_tokens_details");
    uint64_t total = count(j, usage, "total_tokens"), audio_in = count(j, in, "audio_tokens");
    uint64_t reasoning = count(j, out, "reasoning_tokens");
    if (total > prompt && total - prompt > completion) {
        uint64_t hidden = total - prompt - completion;
        if (hidden == audio_in && json_get(j, usage, "prompt_audio_seconds") >= 0) {
            prompt += hidden;
        } else {
            completion += hidden;
            if (reasoning == 0)
                reasoning = hidden;
        }
    }
    uint64_t cached = count(j, in, "cached_tokens");
    if (cached == 0)
        cached = count(j, usage, "prompt_cache_hit_tokens");
    memset(m, 0, sizeof *m);
    m->n[METER_CACHED_INPUT] = least(cached, prompt);
    uint64_t left = prompt - m->n[METER_CACHED_INPUT];
    m->n[METER_CACHE_WRITE] = least(count(j, in, "cache_write_tokens"), left);
    left -= m->n[METER_CACHE_WRITE];
    m->n[METER_AUDIO_INPUT] = least(audio_in, left);
    left -= m->n[METER_AUDIO_INPUT];
    m->n[METER_IMAGE_INPUT] = least(count(j, in, "image_tokens"), left);
    m->n[METER_INPUT] = left - m->n[METER_IMAGE_INPUT];
    m->n[METER_REASONING] = least(reasoning, completion);
    left = completion - m->n[METER_REASONING];
    m->n[METER_AUDIO_OUTPUT] = least(count(j, out, "audio_tokens"), left);
    left -= m->n[METER_AUDIO_OUTPUT];
    m->n[METER_IMAGE_OUTPUT] = least(count(j, out, "image_tokens"), left);
    m->n[METER_OUTPUT] = left - m->n[METER_IMAGE_OUTPUT];
    return true;
}
