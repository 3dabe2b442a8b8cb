/* Text that people and JSON readers are shown: what becomes of bytes that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/text.h"

#define R "\xEF\xBF\xBD"

/* Expected as Python's bytes.decode("utf-8", "replace"), but for control characters. */
static void tamed(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"", ""},
        {"caf\xC3\xA9\n\t", "caf\xC3\xA9\n\t"},
        {"a\x1B[1m\x7F\xC2\x9B", "a?[1m??"},
        {"\xE3\x81", R}, /* a character cut short */
        {"\xF0\x9F\x98", R},
        {"x\xE3\x81y", "x" R "y"},
        {"\xE3\x81\xE3\x81\x82", R "\xE3\x81\x82"},
        {"\x80\x80", R R}, /* nothing begins with these */
        {"\xC0\x80\xFF", R R R},
        {"\xE0\x80\x80", R R R}, /* an overlong form begins no character */
        {"\xED\xA0\x80", R R R}, /* nor does a surrogate */
        {"\xF4\x90\x80\x80", R R R R},
        {"\xF1\x80\x80", R},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = {0};
        buf_tame(&b, cases[i].bytes, strlen(cases[i].bytes));
        assert_string_equal(b.data, cases[i].text);
        buf_release(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tamed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
