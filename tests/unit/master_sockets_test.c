/* Listening sockets: every kind of address, leftovers of the dead, listeners that change in two phases. */
#include "tests/unit/master_fixture.h"

static unsigned port_of(int fd) {
    struct sockaddr_in6 a;
    socklen_t len = sizeof a;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    return ntohs(a.sin6_port); /* at the same place as sin_port */
}

/* A port nobody has just now. */
static unsigned free_port(void) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    unsigned port = port_of(fd);
    close(fd);
    return port;
}

static void sockets_of_all_kinds(void **state) {
    (void)state;
    char address[128], err[256];
    unsigned port = free_port();
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    int v4 = sockets_open(address, 0666, err, sizeof err);
    assert_true(v4 >= 0);
    assert_int_equal(port_of(v4), port);
    assert_true(fcntl(v4, F_GETFL) & O_NONBLOCK);
    assert_int_equal(sockets_open(address, 0666, err, sizeof err), -EADDRINUSE);
    assert_non_null(strstr(err, address));
    snprintf(address, sizeof address, "[::]:%u", port); /* beside 127.0.0.1: IPV6_V6ONLY */
    int v6 = sockets_open(address, 0666, err, sizeof err);
    assert_true(v6 >= 0 || v6 == -EAFNOSUPPORT || v6 == -EADDRNOTAVAIL);
    if (v6 >= 0) close(v6);
    close(v4);
    static const char *const bad[] = { "", "x", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "::1:80", "[::1:80", "example.com:80", "unix:",
                                       "1.2.3.4:80x" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err[0] = '\0';
        assert_true(sockets_open(bad[i], 0666, err, sizeof err) < 0);
        assert_true(err[0] != '\0');
    }
}

static void unix_sockets_replace_only_the_dead(void **state) {
    (void)state;
    char address[160], err[256];
    struct stat st;
    snprintf(address, sizeof address, "unix:%s", in_folder("web.sock"));
    int fd = sockets_open(address, 0600, err, sizeof err);
    assert_true(fd >= 0);
    assert_int_equal(stat(address + 5, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(sockets_open(address, 0666, err, sizeof err), -EADDRINUSE); /* somebody answers */
    close(fd);
    fd = sockets_open(address, 0666, err, sizeof err); /* nobody does any more */
    assert_true(fd >= 0);
    assert_int_equal(stat(address + 5, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0666);
    close(fd);
    snprintf(address, sizeof address, "unix:%s", in_folder("log"));
    close(open(address + 5, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(sockets_open(address, 0666, err, sizeof err), -EEXIST); /* a file is never removed */
    assert_int_equal(access(address + 5, F_OK), 0);
}

/* A snapshot with nothing but these listeners. */
struct fake { struct snap snap; struct snap_listen listens[4]; char text[4][64]; };
static const struct snap *fake_snap(struct fake *f, unsigned n, ...) {
    va_list ap;
    memset(f, 0, sizeof *f);
    f->snap.listens = (struct snap_list){ offsetof(struct fake, listens), n };
    va_start(ap, n);
    for (unsigned i = 0; i < n; i++) {
        f->listens[i].id = va_arg(ap, unsigned);
        snprintf(f->text[i], sizeof f->text[i], "%s", va_arg(ap, const char *));
        f->listens[i].address = (struct snap_str){ (uint32_t)(offsetof(struct fake, text) + i * sizeof f->text[0]),
                                                   (uint32_t)strlen(f->text[i]) };
    }
    va_end(ap);
    return &f->snap;
}

static ino_t inode(int fd) {
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static void listeners_change_in_two_phases(void **state) {
    (void)state;
    struct fake f;
    struct listener *one, *two, *none;
    char a[64], b[64], err[256];
    snprintf(a, sizeof a, "127.0.0.1:%u", free_port());
    snprintf(b, sizeof b, "unix:%s", in_folder("b.sock"));
    assert_true(sockets_prepare(fake_snap(&f, 2, 1u, a, 2u, b), NULL, &one, err, sizeof err));
    ino_t socket_a = inode(one->fd);
    /* One that cannot be opened: nothing changes, and the old ones go on. */
    assert_false(sockets_prepare(fake_snap(&f, 3, 1u, a, 9u, "unix:/no/such/folder/x", 2u, b), one, &none, err, sizeof err));
    assert_null(none);
    assert_int_equal(access(b + 5, F_OK), 0);
    /* The same address with other options (another id) keeps its socket; what is not named goes. */
    assert_true(sockets_prepare(fake_snap(&f, 1, 77u, a), one, &two, err, sizeof err));
    assert_int_equal(two->id, 77);
    assert_int_equal(inode(two->fd), socket_a);
    sockets_close(one, two);
    assert_int_equal(access(b + 5, F_OK), -1);
    sockets_close(two, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sockets_of_all_kinds),
        cmocka_unit_test(unix_sockets_replace_only_the_dead),
        cmocka_unit_test(listeners_change_in_two_phases),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
