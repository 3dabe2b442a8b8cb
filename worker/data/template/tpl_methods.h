/* tpl_methods.h — methods that filters are made of. Private to worker/data/template. */
#ifndef TRIMPOT_TPL_METHODS_H
#define TRIMPOT_TPL_METHODS_H

#include "worker/data/template/tpl_value.h"

/* self: a string; arguments as in Python. */
builtin_fn str_strip, str_replace, str_splitlines, str_center, str_isupper, str_islower;

/* tpl_filters_seq.c */
builtin_fn filter_first, filter_last, filter_list, filter_items, filter_dictsort, filter_sort, filter_unique, filter_reverse, filter_join,
    filter_map, filter_select, filter_reject, filter_selectattr, filter_rejectattr, filter_groupby, filter_sum, filter_min, filter_max,
    filter_batch, filter_slice;

/* tpl_case.c: the value of a decimal digit of any script, -1: none. */
int char_digit(int32_t c);
/* ², ₃, ① and other digits that are no decimals. */
bool char_is_superscript(int32_t c);

#endif
