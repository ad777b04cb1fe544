/* The requests of load.c: one kind a front end, padded to a size, one copy a key. */
#include <stdio.h>
#include <stdlib.h>

#include "tools/bench/load.h"

static const struct kind kinds[] = {
    { .name = "chat",
      .path = "/v1/chat/completions",
      .before = "{\"model\":\"%s\",\"stream\":%s,\"stream_options\":{\"include_usage\":true},\"temperature\":0.7,"
                "\"max_tokens\":256,\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                "{\"role\":\"user\",\"content\":\"",
      .after = "\"}]}",
      .end_mark = "data: [DONE]" },
    { .name = "messages",
      .path = "/v1/messages",
      .before = "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":256,\"messages\":[{\"role\":\"user\",\"content\":\"",
      .after = "\"}]}",
      .end_mark = "event: message_stop" },
    { .name = "responses",
      .path = "/v1/responses",
      .before = "{\"model\":\"%s\",\"stream\":%s,\"max_output_tokens\":256,\"input\":\"",
      .after = "\"}",
      .end_mark = "event: response.completed" },
    { .name = "gemini",
      .path = "/v1beta/models/%s:generateContent",
      .stream_path = "/v1beta/models/%s:streamGenerateContent?alt=sse",
      .before = "{\"generationConfig\":{\"maxOutputTokens\":256},\"contents\":[{\"role\":\"user\",\"parts\":["
                "{\"text\":\"",
      .after = "\"}]}]}",
      .end_mark = "\"finishReason\"",
      .in_event = true },
    { .name = "embeddings", .path = "/v1/embeddings", .before = "{\"model\":\"%s\",\"input\":\"", .after = "\"}" },
    { .name = "status", .path = "/api/status" },
};

const struct kind *kind_find(const char *name) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

static char *make_body(const struct options *o, size_t *len) {
    static const char text[] = "Explain how a reverse proxy shares work between cores, then list three pitfalls. ";
    const struct kind *k = o->kind;
    size_t cap = o->body_bytes + 4096, at;
    char *body = malloc(cap);
    if (!body)
        return NULL;
    at = (size_t)snprintf(body, cap, k->before, o->model, o->stream ? "true" : "false");
    for (size_t i = 0; at + strlen(k->after) < o->body_bytes; i++)
        body[at++] = text[i % (sizeof text - 1)];
    memcpy(body + at, k->after, strlen(k->after));
    *len = at + strlen(k->after);
    return body;
}

static bool add_request(struct requests *r, const struct options *o, const char *key, const char *body, size_t len) {
    const struct kind *k = o->kind;
    const char *path = o->stream && k->stream_path ? k->stream_path : k->path;
    struct slice *more = realloc(r->at, (r->count + 1) * sizeof *more);
    char *text = more ? malloc(len + 2048) : NULL;
    if (!text)
        return false;
    r->at = more;
    int n = snprintf(text, 2048, "%s ", k->before ? "POST" : "GET");
    n += snprintf(text + n, 2048 - (size_t)n, path, o->model);
    n += snprintf(text + n, 2048 - (size_t)n,
                  " HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: tollgate-load\r\nAccept: %s\r\n", o->host, o->port,
                  o->stream ? "text/event-stream" : "application/json");
    if (k->before)
        n += snprintf(text + n, 2048 - (size_t)n, "Content-Type: application/json\r\nContent-Length: %zu\r\n", len);
    n += snprintf(text + n, 2048 - (size_t)n, "%s%s%s\r\n", *key ? "Authorization: Bearer " : "", key,
                  *key ? "\r\n" : "");
    memcpy(text + n, body, len);
    r->at[r->count++] = slice_of(text, (size_t)n + len);
    return true;
}

bool requests_make(struct requests *r, const struct options *o) {
    size_t len = 0;
    char *body = o->kind->before ? make_body(o, &len) : strdup(""), line[256];
    if (!body)
        return false;
    bool ok = true;
    FILE *keys = o->key_file ? fopen(o->key_file, "r") : NULL;
    if (o->key_file && !keys)
        perror(o->key_file);
    while (keys && ok && fgets(line, sizeof line, keys)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (*line)
            ok = add_request(r, o, line, body, len);
    }
    if (keys)
        fclose(keys);
    if (!o->key_file)
        ok = add_request(r, o, o->key ? o->key : "", body, len);
    free(body);
    return ok && r->count > 0;
}
