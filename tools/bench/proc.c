/* Reads /proc for load.c: the tree below a process, its CPU time, its memory. What cannot be read counts as nothing: a
 * process may end at any time, and another user's memory may be out of sight. */
#include "tools/bench/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROC_MAX = 4096 };

struct parent { int pid, ppid; };

static int read_file(const char *path, char *out, size_t cap) {
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    size_t n = fread(out, 1, cap - 1, f);
    fclose(f);
    out[n] = '\0';
    return n > 0;
}

static int parent_of(int pid) {
    char path[64], text[512];
    int ppid = -1;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (!read_file(path, text, sizeof text))
        return -1;
    const char *end = strrchr(text, ')'); /* the name may hold anything */
    return end && sscanf(end + 1, " %*c %d", &ppid) == 1 ? ppid : -1;
}

static int all_processes(struct parent *out) {
    DIR *d = opendir("/proc");
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d)) && n < PROC_MAX;)
        if (isdigit((unsigned char)e->d_name[0])) {
            out[n].pid = (int)strtol(e->d_name, NULL, 10);
            out[n].ppid = parent_of(out[n].pid);
            n++;
        }
    if (d)
        closedir(d);
    return n;
}

/* root and all below it, into pids: how many. */
static int tree(int root, int *pids) {
    static struct parent all[PROC_MAX];
    int n = all_processes(all), count = 0;
    pids[count++] = root;
    for (int i = 0; i < count; i++)
        for (int k = 0; k < n && count < PROC_MAX; k++)
            if (all[k].ppid == pids[i])
                pids[count++] = all[k].pid;
    return count;
}

static int count_entries(const char *path) {
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

static uint64_t cpu_ns(int pid) {
    char path[320], text[128];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, e->d_name);
        if (read_file(path, text, sizeof text))
            sum += strtoull(text, NULL, 10);
    }
    if (d)
        closedir(d);
    return sum;
}

static uint64_t line_kb(const char *text, const char *name) {
    const char *at = strstr(text, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static void add_memory(struct proc_use *use, int pid) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    if (read_file(path, text, sizeof text)) {
        use->pss_kb += line_kb(text, "\nPss:");
        use->anon_kb += line_kb(text, "\nPss_Anon:");
    }
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    use->descriptors += (uint32_t)count_entries(path);
}

void proc_sample(struct proc_use *use, int root, int memory) {
    static int pids[PROC_MAX];
    *use = (struct proc_use){ 0 };
    if (root <= 0)
        return;
    int n = tree(root, pids);
    for (int i = 0; i < n; i++) {
        use->cpu_ns += cpu_ns(pids[i]);
        use->processes++;
        if (memory)
            add_memory(use, pids[i]);
    }
}
