/* safetensors: a table of hostile images, an independent mini-reader, shards, and writes that fail. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoints/hf.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

static char dir[256];

static int setup(void **unused)
{
    (void)unused;
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/trimpot-st-XXXXXX", base ? base : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    return file_remove_tree(dir) ? -1 : 0;
}

static char *at(const char *name)
{
    static char ring[4][400];
    static int next;
    char *p = ring[next++ & 3];
    snprintf(p, 400, "%s/%s", dir, name);
    return p;
}

/* Length, header, `data_bytes` bytes of data, in exactly sized memory so that a sanitizer sees every step beyond. */
static unsigned char *image(const char *header, int64_t said_length, size_t data_bytes, size_t *bytes)
{
    size_t n = strlen(header);
    uint64_t length = said_length < 0 ? n : (uint64_t)said_length;
    *bytes = 8 + n + data_bytes;
    unsigned char *p = malloc(*bytes);
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(length >> (8 * i));
    memcpy(p + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++) p[8 + n + i] = (unsigned char)i;
    return p;
}

static status parse(const char *header, int64_t said_length, size_t data_bytes, struct st_entry **e, int *n)
{
    size_t bytes;
    unsigned char *p = image(header, said_length, data_bytes, &bytes);
    status st = st_parse("x.safetensors", p, bytes, e, n);
    free(p);
    return st;
}

#define T(dtype, shape, lo, hi) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" lo "," hi "]}"

static const struct bad {
    const char *header;
    int64_t said_length;
    size_t data;
    const char *says;
} bad[] = {
    {"", -1, 0, "does not start"},
    {"{", -1, 0, "does not start"},
    {"[]", -1, 0, "does not start"},
    {" {}", -1, 0, "does not start"},
    {"{}", 3, 0, "header length 3"},
    {"{}", 100000001, 0, "permitted"},
    {"{}", INT64_MAX, 0, "permitted"},
    {"{} x", -1, 0, "x.safetensors:1:"},
    {"{\"a\":" T("F32", "[1]", "0", "4") "}", 20, 4, "x.safetensors:1:"},
    {"{\"a\":" T("F32", "[1]", "0", "4") ",\"a\":" T("F32", "[1]", "0", "4") "}", -1, 4, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, "duplicate"},
    {"{\"a\":[]}", -1, 0, "must be {"},
    {"{\"a\":{}}", -1, 0, "must be {"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", -1, 4, "must be {"},
    {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, "must be {"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}", -1, 4, "must be {"},
    {"{\"a\":" T("F33", "[1]", "0", "4") "}", -1, 4, "unknown dtype \"F33\""},
    {"{\"a\":" T("f32", "[1]", "0", "4") "}", -1, 4, "unknown dtype"},
    {"{\"a\":" T("F32", "1", "0", "4") "}", -1, 4, "shape is not a list"},
    {"{\"a\":" T("F32", "[1.0]", "0", "4") "}", -1, 4, "dimension 0 is 1.0"},
    {"{\"a\":" T("F32", "[-1]", "0", "4") "}", -1, 4, "dimension 0 is -1"},
    {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", -1, 4, "9 dimensions"},
    {"{\"a\":" T("F32", "[4294967296,4294967296]", "0", "0") "}", -1, 0, "overflows"},
    {"{\"a\":" T("F32", "[2305843009213693952]", "0", "0") "}", -1, 0, "overflows"},
    {"{\"a\":" T("F32", "[9223372036854775808]", "0", "0") "}", -1, 0, "too big"},
    {"{\"a\":" T("F32", "[2]", "0", "4") "}", -1, 4, "needs 8 bytes"},
    {"{\"a\":" T("F32", "[1]", "4", "0") "}", -1, 4, "do not lie"},
    {"{\"a\":" T("F32", "[1]", "-4", "0") "}", -1, 4, "do not lie"},
    {"{\"a\":" T("F32", "[2]", "0", "8") "}", -1, 4, "do not lie"},
    {"{\"a\":" T("F32", "[1]", "9223372036854775804", "9223372036854775807") "}", -1, 4, "do not lie"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", -1, 4, "not two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", -1, 4, "not two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]}}", -1, 4, "not two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{}}}", -1, 4, "not two integers"},
    {"{\"a\":" T("F4", "[3]", "0", "1") "}", -1, 1, "no whole bytes"},
    {"{\"a\":" T("F32", "[1]", "4", "8") "}", -1, 8, "hole"},
    {"{\"a\":" T("F32", "[1]", "0", "4") ",\"b\":" T("F32", "[1]", "8", "12") "}", -1, 12, "hole"},
    {"{\"a\":" T("F32", "[2]", "0", "8") ",\"b\":" T("F32", "[1]", "4", "8") "}", -1, 8, "overlap"},
    {"{\"a\":" T("F32", "[1]", "0", "4") ",\"b\":" T("F32", "[1]", "0", "4") "}", -1, 4, "overlap"},
    {"{\"a\":" T("F32", "[2]", "0", "8") ",\"b\":" T("F32", "[0]", "4", "4") "}", -1, 8, "overlap"},
    {"{\"a\":" T("F32", "[1]", "0", "4") "}", -1, 5, "truncated or has a tail"},
    {"{}", -1, 1, "truncated or has a tail"},
    {"{\"__metadata__\":1}", -1, 0, "__metadata__ is not"},
    {"{\"__metadata__\":{\"a\":1}}", -1, 0, "where a string must be"},
    {"{\"a\\u0000b\":" T("F32", "[1]", "0", "4") "}", -1, 4, "x.safetensors:1:"},
    {"{\"a\\u001b[31m\":" T("F32", "[1]", "0", "4") "}", -1, 4, "control character"},
    {"{\"a\xff\":" T("F32", "[1]", "0", "4") "}", -1, 4, "unable to decode"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", -1, 0,
     "deeper than 64"},
};

static void hostile_headers(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct st_entry *e;
        int n;
        status st = parse(bad[i].header, bad[i].said_length, bad[i].data, &e, &n);
        if (st != ST_CORRUPT || e || n || !strstr(status_message(), bad[i].says) || !strstr(status_message(), "x.safetensors"))
            fail_msg("row %zu %s: %d '%s', wanted '%s'", i, bad[i].header, st, st ? status_message() : "", bad[i].says);
    }
    struct st_entry *e;
    int n;
    for (size_t bytes = 0; bytes < 8; bytes++)
        assert_int_equal(st_parse("x", (const unsigned char *)"\2\0\0\0\0\0\0\0", bytes, &e, &n), ST_CORRUPT);
}

static void legal_oddities(void **unused)
{
    (void)unused;
    struct st_entry *e;
    int n;
    assert_int_equal(parse("{}", -1, 0, &e, &n), ST_OK);
    assert_int_equal(n, 0);
    st_entries_free(e, n);
    /* padded; 0-d; zero-size ones between; out of order; a type that only passes through; __metadata__ last */
    const char *header = "{\"z\":" T("BF16", "[2]", "4", "8") ",\"none\":" T("F32", "[3,0]", "4", "4") ",\"scalar\":" T(
        "F32", "[]", "0", "4") ",\"four\":" T("F4", "[2]", "8",
                                              "9") ",\"end\":" T("U8", "[0]", "9",
                                                                 "9") ",\"__metadata__\":{\"format\":\"pt\",\"x\":\"\"}}   ";
    size_t bytes;
    unsigned char *p = image(header, -1, 9, &bytes);
    assert_int_equal(st_parse("x", p, bytes, &e, &n), ST_OK);
    assert_int_equal(n, 5);
    static const char *const order[] = {"end", "four", "none", "scalar", "z"};
    for (int i = 0; i < 5; i++) assert_string_equal(e[i].name, order[i]);
    assert_false(e[1].known);
    assert_string_equal(e[1].dtype_text, "F4");
    assert_true(e[4].known && e[4].dt == DT_BF16 && e[4].bytes == 4 && ((const unsigned char *)e[4].data)[0] == 4);
    assert_int_equal(e[3].rank, 0);
    st_entries_free(e, n);
    free(p);
}

/* ---- writer, judged by a reader that shares nothing with ours
 * --------------------------------------------------------- */

/* Finds `"name":{"dtype":"X","shape":[..],"data_offsets":[a,b]}` by plain text search and compares. */
static void mini_check(const char *file, const char *name, const char *type, const char *shape, const void *want, size_t n)
{
    FILE *f = fopen(file, "rb");
    assert_non_null(f);
    unsigned char length[8];
    assert_int_equal(fread(length, 1, 8, f), 8);
    size_t header = length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16;
    assert_int_equal(header % 8, 0);
    char *text = calloc(header + 1, 1), key[200];
    assert_int_equal(fread(text, 1, header, f), header);
    assert_memory_equal(text, "{\"__metadata__\":{\"format\":\"pt\"}", 31);
    snprintf(key, sizeof key, "\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[", name, type, shape);
    char *entry = strstr(text, key);
    if (!entry) fail_msg("%s is not in %s", key, text);
    long a, b;
    assert_int_equal(sscanf(entry + strlen(key), "%ld,%ld]", &a, &b), 2);
    assert_int_equal(b - a, n);
    char *data = malloc(n + 1);
    fseek(f, 8 + (long)header + a, SEEK_SET);
    assert_int_equal(fread(data, 1, n, f), n);
    assert_memory_equal(data, want, n);
    free(data);
    free(text);
    fclose(f);
}

static float values[64];
static const struct st_declare model[] = {
    {"layers.0.weight", DT_F32, 2, {4, 5}}, {"a.bias", DT_BF16, 1, {7}}, {"layers.1.weight", DT_F32, 2, {2, 5}},
    {"quote\"\\ü", DT_F16, 1, {1}},         {"none", DT_F32, 2, {0, 9}}, {"scalar", DT_F64, 0, {0}},
};
enum { N_MODEL = sizeof model / sizeof *model };

static const void *data_of(int i) { return &values[i]; }

static status write_model(const char *where, size_t shard_bytes, bool commit)
{
    struct st_writer *w;
    TRY(st_writer_open(where, "model", model, N_MODEL, shard_bytes, &w));
    status st = ST_OK;
    for (int i; !st && (i = st_writer_next(w)) >= 0;) st = st_writer_put(w, data_of(i));
    status closed = st_writer_close(w, commit && !st);
    return st ? st : closed;
}

static void check_model(const char *where)
{
    struct st_set s;
    assert_int_equal(st_open(where, "model", &s), ST_OK);
    assert_int_equal(s.n, N_MODEL);
    for (int i = 0; i < N_MODEL; i++) {
        const struct st_entry *e = st_find(&s, model[i].name);
        assert_non_null(e);
        assert_true(e->known && e->dt == model[i].dt && e->rank == model[i].rank);
        for (int k = 0; k < e->rank; k++) assert_int_equal(e->dim[k], model[i].dim[k]);
        assert_memory_equal(e->data, data_of(i), e->bytes);
    }
    assert_null(st_find(&s, "absent"));
    for (int i = 1; i < s.n; i++) assert_true(strcmp(s.entries[i - 1].name, s.entries[i].name) < 0);
    st_close(&s);
}

static int files_in(const char *where)
{
    DIR *d = opendir(where);
    int n = 0;
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void written_single(void **unused)
{
    (void)unused;
    assert_int_equal(write_model(dir, 0, true), ST_OK);
    assert_int_equal(files_in(dir), 1);
    const char *file = at("model.safetensors");
    mini_check(file, "layers.0.weight", "F32", "[4,5]", data_of(0), 80);
    mini_check(file, "a.bias", "BF16", "[7]", data_of(1), 14);
    mini_check(file, "quote\\\"\\\\ü", "F16", "[1]", data_of(3), 2);
    mini_check(file, "none", "F32", "[0,9]", data_of(4), 0);
    mini_check(file, "scalar", "F64", "[]", data_of(5), 8);
    check_model(dir);
    check_model(file);
    char *first, *second;
    size_t n, m;
    assert_int_equal(file_read(file, 1 << 20, &first, &n), ST_OK);
    assert_int_equal(write_model(dir, 0, true), ST_OK);
    assert_int_equal(file_read(file, 1 << 20, &second, &m), ST_OK);
    assert_int_equal(n, m);
    assert_memory_equal(first, second, n);
    free(first);
    free(second);
}

static void written_in_shards(void **unused)
{
    (void)unused;
    assert_int_equal(write_model(dir, 0, true), ST_OK); /* an older export, which must go */
    assert_int_equal(write_model(dir, 60, true), ST_OK);
    assert_int_equal(files_in(dir), 4); /* 8 | 80 | 40 + 0 + 14 + 2 and the index */
    mini_check(at("model-00002-of-00003.safetensors"), "layers.0.weight", "F32", "[4,5]", data_of(0), 80);
    check_model(dir);
    char *index;
    assert_int_equal(file_read(at("model.safetensors.index.json"), 1 << 20, &index, NULL), ST_OK);
    assert_non_null(strstr(index, "\"total_size\": 144"));
    assert_non_null(strstr(index, "\"layers.0.weight\": \"model-00002-of-00003.safetensors\""));
    free(index);
    assert_int_equal(write_model(dir, 100, true), ST_OK);
    check_model(dir);
    assert_int_equal(write_model(dir, 0, true), ST_OK);
    assert_int_equal(files_in(dir), 1);
    check_model(dir);
}

static void an_aborted_write_leaves_nothing(void **unused)
{
    (void)unused;
    assert_int_equal(write_model(dir, 0, true), ST_OK);
    assert_int_equal(write_model(dir, 0, false), ST_OK);
    assert_int_equal(write_model(dir, 60, false), ST_OK);
    assert_int_equal(files_in(dir), 1);
    check_model(dir);
    struct st_writer *w;
    assert_int_equal(st_writer_open(dir, "model", model, N_MODEL, 60, &w), ST_OK);
    assert_int_equal(st_writer_put(w, values), ST_OK);
    assert_int_equal(st_writer_close(w, true), ST_FAIL); /* tensors are missing: nothing is committed */
    const struct st_declare twice[] = {{"a", DT_F32, 1, {1}}, {"b", DT_F32, 1, {1}}, {"a", DT_BF16, 1, {1}}};
    assert_int_equal(st_writer_open(dir, "model", twice, 3, 0, &w), ST_FAIL);
    const struct st_declare huge[] = {{"a", DT_F32, 2, {INT64_MAX / 2, 3}}};
    assert_int_equal(st_writer_open(dir, "model", huge, 1, 0, &w), ST_FAIL);
    const struct st_declare large[] = {{"a", DT_F32, 2, {1 << 30, 1 << 20}}};
    assert_int_equal(st_writer_open(dir, "model", large, 1, 0, &w), ST_IO);
    assert_non_null(strstr(status_message(), "are free"));
    assert_int_equal(files_in(dir), 1);
    check_model(dir);
}

static void a_failing_write_leaves_nothing(void **unused)
{
    (void)unused;
    assert_int_equal(write_model(dir, 0, true), ST_OK);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit;
        getrlimit(RLIMIT_FSIZE, &limit);
        int wrong = 0;
        for (rlim_t bytes = 0; bytes < 200; bytes += 10) {
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, limit.rlim_max});
            wrong |= write_model(dir, bytes % 20 ? 60 : 0, true) != ST_IO || files_in(dir) != 1;
        }
        _exit(wrong);
    }
    int rc;
    waitpid(child, &rc, 0);
    assert_int_equal(rc, 0);
    check_model(dir);
}

/* ---- directories
 * ------------------------------------------------------------------------------------------------------ */

static void put(const char *name, const char *text) { assert_int_equal(file_replace(at(name), text, strlen(text)), ST_OK); }

static void refused(status want, const char *says)
{
    struct st_set s;
    status st = st_open(dir, "model", &s);
    if (st != want || !strstr(status_message(), says)) fail_msg("%d '%s', wanted %d '%s'", st, status_message(), want, says);
    assert_int_equal(s.n, 0);
}

static void directories(void **unused)
{
    (void)unused;
    struct st_set s;
    assert_int_equal(st_open(at("absent"), "model", &s), ST_IO);
    refused(ST_IO, "has neither model.safetensors");
    put("pytorch_model.bin", "pickle");
    refused(ST_NOT_BUILT, "pytorch_model.bin");
    assert_int_equal(write_model(dir, 60, true), ST_OK);
    check_model(dir);

    static const struct {
        const char *index;
        status st;
        const char *says;
    } rows[] = {
        {"{", ST_CORRUPT, "index.json:1:"},
        {"{}", ST_CORRUPT, "weight_map is missing"},
        {"{\"weight_map\":[]}", ST_CORRUPT, "an object"},
        {"{\"weight_map\":{\"a\":1}}", ST_CORRUPT, "sends 'a' to 1"},
        {"{\"weight_map\":{\"a\":\"../model-00001-of-00003.safetensors\"}}", ST_CORRUPT, "plain name"},
        {"{\"weight_map\":{\"a\":\"/etc/x.safetensors\"}}", ST_CORRUPT, "plain name"},
        {"{\"weight_map\":{\"a\":\"..safetensors\"}}", ST_CORRUPT, "plain name"},
        {"{\"weight_map\":{\"a\":\"pytorch_model.bin\"}}", ST_CORRUPT, "plain name"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}", ST_IO, "one.safetensors two.safetensors"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put("model.safetensors.index.json", rows[i].index);
        refused(rows[i].st, rows[i].says);
    }
    /* Files that it does not name are passed over; tensors of a named file are not. */
    put("model.safetensors.index.json", "{\"weight_map\":{\"layers.0.weight\":\"model-00002-of-00003.safetensors\","
                                        "\"a.bias\":\"model-00003-of-00003.safetensors\"}}");
    assert_int_equal(st_open(dir, "model", &s), ST_OK);
    assert_int_equal(s.n, 5);
    assert_int_equal(s.bytes, 136);
    st_close(&s);
    assert_int_equal(truncate(at("model-00003-of-00003.safetensors"), 100), 0);
    refused(ST_CORRUPT, "model-00003-of-00003.safetensors");
}

static void write_one(const char *stem, float value)
{
    const struct st_declare one[] = {{"one", DT_F32, 1, {1}}};
    struct st_writer *w;
    assert_int_equal(st_writer_open(dir, stem, one, 1, 0, &w), ST_OK);
    assert_int_equal(st_writer_put(w, &value), ST_OK);
    assert_int_equal(st_writer_close(w, true), ST_OK);
}

static float read_one(int tensors)
{
    struct st_set s;
    float value;
    if (st_open(dir, "model", &s)) fail_msg("%s", status_message());
    assert_int_equal(s.n, tensors);
    memcpy(&value, st_find(&s, "one")->data, sizeof value);
    st_close(&s);
    return value;
}

#define MAP(entries) put("model.safetensors.index.json", "{\"weight_map\":{" entries "}}")

static void a_stale_index(void **unused)
{
    (void)unused;
    write_one("first", 1);
    write_one("second", 2);
    MAP("\"one\":\"first.safetensors\",\"x\":\"second.safetensors\"");
    assert_true(read_one(1) == 1); /* it tells copies apart; x, which is nowhere, is for the model to miss */
    MAP("\"one\":\"second.safetensors\",\"x\":\"first.safetensors\"");
    assert_true(read_one(1) == 2);
    MAP("\"x\":\"first.safetensors\"");
    assert_true(read_one(1) == 1);
    MAP("\"x\":\"first.safetensors\",\"y\":\"second.safetensors\"");
    refused(ST_CORRUPT, "which 'one' is meant");
    assert_int_equal(write_model(dir, 60, true), ST_OK);
    MAP("\"a.bias\":\"model-00001-of-00003.safetensors\",\"x\":\"model-00002-of-00003.safetensors\","
        "\"none\":\"model-00003-of-00003.safetensors\"");
    check_model(dir);
    write_one("model", 3); /* the one file goes before any index */
    put("model.safetensors.index.json", "{\"weight_map\":{\"one\":\"gone.safetensors\"}}");
    assert_true(read_one(1) == 3);
    put("model.safetensors.index.json", "not JSON");
    assert_true(read_one(1) == 3);
}

static void a_git_lfs_pointer(void **unused)
{
    (void)unused;
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\n"
                                  "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    put("model.safetensors", pointer);
    refused(ST_IO, "model.safetensors: a Git LFS pointer, not the file itself; run `git lfs pull`");
    assert_int_equal(file_remove_tree(at("model.safetensors")), ST_OK);
    put("one.safetensors", pointer);
    MAP("\"one\":\"one.safetensors\"");
    refused(ST_IO, "one.safetensors: a Git LFS pointer");
    put("model.safetensors.index.json", pointer);
    refused(ST_IO, "model.safetensors.index.json: a Git LFS pointer");
}

int main(void)
{
    for (int i = 0; i < 64; i++) values[i] = (float)i * 1.25f - 3;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_headers),
        cmocka_unit_test(legal_oddities),
        cmocka_unit_test_setup_teardown(written_single, setup, teardown),
        cmocka_unit_test_setup_teardown(written_in_shards, setup, teardown),
        cmocka_unit_test_setup_teardown(an_aborted_write_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failing_write_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(directories, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stale_index, setup, teardown),
        cmocka_unit_test_setup_teardown(a_git_lfs_pointer, setup, teardown),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
