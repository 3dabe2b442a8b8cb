#!/usr/bin/env python3
"""make_cases.py — writes golden/cases.json: small templates and what Jinja makes of them.

    python3 tests/template/make_cases.py        needs jinja2 (3.1); the tests do not

The environment is the one that transformers' apply_chat_template renders in. A case is [template, text], or
[template, null, "compile" or "render", the message] where Jinja refuses it. All of them see the same variables.
"""
import datetime
import json
import os
import pathlib
import time

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

os.environ["TZ"] = "UTC"
time.tzset()
NOW = 1753142405  # 2025-07-22 00:00:05 UTC

MESSAGES = [
    {"role": "system", "content": "Be <brief>."},
    {"role": "user", "content": "  Hi there \n"},
    {"role": "assistant", "content": "Hello", "reasoning_content": "hm\n",
     "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": [1.5, None, True]}}}]},
    {"role": "tool", "content": "[1, 2]", "name": "f"},
    {"role": "assistant", "content": None, "weight": 0.5},
    {"role": "user", "content": [{"type": "text", "text": "parts"}, {"type": "image"}]},
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "Adds \"é\" & <b>", "parameters": {"type": "object", "properties": {}}}}]
VARS = {
    "bos_token": "<s>", "eos_token": "</s>", "s": "Hello World", "empty": "", "pad": "  x y  \n", "uni": "Ünïcödé ß ÆŒ ſ ǆ",
    "emoji": "a😀b👍", "cjk": "日本語 テキスト", "quote": "it's", "both": "it's \"q\"", "esc": "tab\there\nnl\\ \u0001 \u00a0 \u007f",
    "csv": "a,b,,c", "sp": "  one two   three ", "lines": "l1\nl2\r\nl3\rl4\n", "html": "<a href=\"x\">'&'</a>", "sigma": "ΑΣ ΣΑΣ",
    "n": 7, "neg": -3, "zero": 0, "big": 9007199254740993, "f": 2.5, "whole": 3.0, "tiny": 1e-7, "huge": 1e22, "yes": True, "no": False,
    "nothing": None, "nums": [3, 1, 2], "floats": [1.0, 2.5], "strs": ["b", "A", "c", "a"], "mixed": [1, "a", None, 2.0, True, [1], {"k": "v"}],
    "nested": [[1, 2], [3, 4]], "none_list": [], "d": {"b": 2, "a": 1, "C": 3}, "dd": {"x": {"y": {"z": "deep"}}, "items": "shadow", "get": 1},
    "people": [{"name": "Bob", "age": 30, "pet": {"k": 1}}, {"name": "alice", "age": 25}, {"name": "Carl", "age": 30, "pet": {"k": 2}}],
    "tree": [{"v": 1, "c": [{"v": 2, "c": []}, {"v": 3, "c": [{"v": 4, "c": []}]}]}, {"v": 5, "c": []}],
    "e": {}, "under": {"_x": 1, "__class__": "c"},
}

CASES = []


def add(*templates):
    CASES.extend(templates)


def exprs(*expressions):
    CASES.extend("{{ " + e + " }}" for e in expressions)


# ---- printing --------------------------------------------------------------------------------------------------------
exprs("s", "n", "neg", "f", "whole", "tiny", "huge", "big", "yes", "no", "nothing", "nums", "floats", "mixed", "nested", "d", "e", "none_list",
      "missing", "quote", "[quote]", "[both]", "[esc]", "[uni]", "[emoji]", "()", "(1,)", "(1, 2)", "1, 2", "[]", "{}", "{'a': 1, 2: [3]}",
      "{none: 1, true: 2, 1.5: 3}", "1.0", "1e3", "1e16", "1.5e300", "123456789012345680.0", "0.1 + 0.2", "1e-5", "0.0001", "100.0", "1e15",
      "5e-324", "1.7976931348623157e308", "[1e400]", "-0.0", "range(3)", "range(1, 7, 2)", "d.keys()", "d.values()", "d.items()",
      "[missing]", "{'k': missing}", "messages[0]", "tools", "namespace(a=1)", "1_000", "0x1F", "0o17", "0b101", "1_0.5", "'a' 'b' \"c\"",
      "true", "True", "false", "none", "None", "'\\n\\t\\\\\\'\\\"'", "'\\x41\\u00e9\\U0001F600\\101'", "'\\q\\é'", "\"it's\"", "'multi\nline'", "'a\\\nb'")
# ---- operators -------------------------------------------------------------------------------------------------------
exprs("1 + 2", "1 - 2 - 3", "2 * 3 + 4", "2 + 3 * 4", "7 / 2", "6 / 3", "7 // 2", "-7 // 2", "7 // -2", "-7 % 3", "7 % -3", "7.5 // 2",
      "-7.5 % 2", "7.5 % -2", "2 ** 3", "2 ** -1", "2 ** 3 ** 2", "2 ** 0.5", "-2 ** 2", "(-2) ** 2", "-n", "+n", "--n", "- f", "+yes", "-yes",
      "yes + yes", "yes * 3", "1 + 1.0", "1 / 3", "10 / 4 * 2", "1e308 * 10", "s + '!'", "s * 2", "2 * 'ab'", "'ab' * 0", "'ab' * -1",
      "nums + [4]", "(1,) + (2,)", "[0] * 3", "2 * [1, 2]", "s ~ n ~ f ~ none ~ yes ~ missing", "1 ~ 2 + 3", "'a' ~ 'b' * 2", "1 == 1.0", "1 == true", "0 == false",
      "'1' == 1", "'a' == 'a'", "[1] == [1.0]", "(1,) == [1]", "d == {'a': 1, 'C': 3, 'b': 2}", "none == false", "missing == none", "missing == missing2",
      "missing != 1", "1 != 2", "1 < 2 < 3", "1 < 3 < 2", "3 > 2 >= 2", "1 < 2 == true", "'a' < 'b'", "'Z' < 'a'", "'a' <= 'a'", "[1, 2] < [1, 3]", "[1] < [1, 0]",
      "(1, 'a') < (1, 'b')", "1 < 2.5", "true < 2", "'b' in 'abc'", "'' in 'abc'", "1 in nums", "4 not in nums", "'a' in d", "2 in d", "'x' not in dd",
      "1.0 in [1]", "3 in range(5)", "'a' in missing", "missing in nums", "none in [none]", "'k' in d.keys()", "not yes", "not missing", "not not s", "not 1 == 2",
      "not 'a' in 'abc'", "yes and no", "no or s", "s and n", "empty or 'x'", "none or 0", "0 or none", "[] or {}", "1 and 2 or 3", "no and missing.x", "yes or missing.x",
      "1 if yes else 2", "1 if no else 2", "1 if no", "(1 if no) is defined", "'a' if no else 'b' if no else 'c'", "[1 if yes else 2, 3]", "1 + (2 if no else 3)",
      "1 if yes if no else 3", "(1 if no else 2) + 1", "n % 2 == 1", "'%s-%d' % ('a', 3)", "'%s' % s", "'%5.2f|%-5s|%05d|%+d|%x|%X|%o|%e|%g' % (3.14159, 'ab', 42, 7, 255, 255, 8, 12345.678, 0.0001)",
      "'%(a)s-%(b)r' % {'a': 1, 'b': 'x'}", "'100%%' % ()", "'%s' % (nums,)", "'%r' % quote", "'%c%c' % ('x', 'y')", "'%*d' % (5, 3)", "'%.3s|%5s|%-5s|' % ('abcdef', 'é', 'é')",
      "'%d' % 3.9", "'%d' % true", "'%i %u' % (1, 2)", "'%s %s' % (none, missing)", "'%#x' % 255", "'% d' % 5", "'%f' % 1", "'%.0f' % 2.5", "'%G' % 1e-10", "'%%%s' % 1")
# ---- errors of operators ---------------------------------------------------------------------------------------------
exprs("1 / 0", "1 // 0", "1 % 0", "1.0 / 0", "0 ** -1", "s + 1", "1 + s", "nums + (1,)", "none + 1", "missing + 1", "1 + missing", "s - 'a'", "s * 'a'", "s * 1.5",
      "nums - nums", "d + d", "1 < 'a'", "none < 1", "missing < 1", "1 > missing", "d < d", "[1] < ['a']", "1 in 5", "1 in 'abc'", "1 in none", "-s", "-missing", "+none",
      "'%d' % 'x'", "'%s %s' % 1", "'%s' % (1, 2)", "'%q' % 1", "'abc' % 1", "'%(x)s' % 1", "'%' % 1", "missing.x", "missing['x']", "missing.x.y", "missing()", "missing[1:]",
      "none.x.y", "none()", "s()", "n.x.y", "nums[0].x.y", "1 + 1 if missing.a else 2")
# ---- lookups ---------------------------------------------------------------------------------------------------------
exprs("d.a", "d['a']", "d.zz", "d['zz']", "dd.x.y.z", "dd['x']['y'].z", "dd.items", "dd['items']", "dd.get", "d.items is callable", "nums[0]", "nums[-1]", "nums[5]", "nums[-4]", "nums.0", "nested[1][0]",
      "nested.1.0", "s[0]", "s[-1]", "s[99]", "emoji[1]", "emoji[-1]", "s.zz", "nums.zz", "nums['a']", "n.zz", "none.zz", "d[1]", "{1: 'a'}[1]", "{1: 'a'}[true]", "{1: 'a'}[1.0]", "{(1, 2): 'a'}[1, 2]",
      "nums[true]", "nums[1.0]", "nums[none]", "s['upper']()", "d['get']('a')", "messages[2].tool_calls[0].function.arguments.y[0]", "messages[2]['tool_calls'][0]['function']['name']",
      "range(5)[2]", "range(5)[-1]", "d.keys()[0]", "d.items()[0]", "(1, 2)[1]", "under._x", "under['_x']", "s.__class__", "s['__class__']", "s.__class__.x", "under.__class__", "d.__len__",
      "nums[:2]", "nums[1:]", "nums[:-1]", "nums[::-1]", "nums[::2]", "nums[-2:]", "nums[5:]", "nums[-9:2]", "nums[2:0:-1]", "nums[:]", "nums[none:2]", "s[1:4]", "s[::-1]", "s[::2]", "s[-3:]", "s[8:2:-2]",
      "emoji[::-1]", "emoji[1:3]", "emoji[:-1]", "cjk[2:5]", "uni[::3]", "s[:100]", "s[5:2]", "s[-100:3]", "(1, 2, 3)[1:]", "range(10)[2:5]", "range(10)[::-1]|list", "range(10)[2:8:3]|list", "empty[::-1]", "s[10:0:-3]", "nums[9223372036854775807:]", "nums[::9223372036854775807]",
      "nums[::-9223372036854775807]", "nums[-9223372036854775807:]", "nums[::0]", "nums['a':]", "nums[1.0:]", "d[1:]", "nothing[1:]", "n[1:]", "d.keys()[1:]", "namespace(a=1).a", "namespace(a=1)['a']", "namespace(a=1).b",
      "d.a.b", "d.a.b.c", "nums[0:1, 2]", "d.update({})", "nums.append(1)", "nums.append", "nums.append is defined", "d.pop('a')", "nums.sort()", "nums.pop", "d.clear is defined", "d.setdefault('a', 1)")
# ---- methods of strings ----------------------------------------------------------------------------------------------
exprs("s.upper()", "s.lower()", "uni.upper()", "uni.lower()", "uni.title()", "uni.capitalize()", "sigma.lower()", "sigma.title()", "'ß ŉ ﬁ ΐ'.upper()", "'İ'.lower()", "'ǆ x'.title()", "s.swapcase()", "'Straße'.casefold()",
      "\"they're bill's\".title()", "'hELLO wORLD'.capitalize()", "pad.strip()", "pad.lstrip()", "pad.rstrip()", "'xxabcxx'.strip('x')", "'abcxyz'.strip('zax')", "'éaé'.strip('é')", "'\u3000\x1f a \x85'.strip()", "'x'.strip(none)", "'\\n\\n a\\n'.lstrip('\\n')",
      "csv.split(',')", "csv.split(',', 1)", "csv.split(',', -1)", "csv.split(',', maxsplit=2)", "csv.split(sep=',')", "csv.rsplit(',', 1)", "csv.rsplit(',')", "sp.split()", "sp.split(none, 1)", "sp.split(maxsplit=1)", "sp.rsplit()", "sp.rsplit(none, 1)", "sp.split(' ')", "''.split()", "''.split(',')", "'aXXbXXc'.split('XX')",
      "'aXXXb'.split('XX')", "'aXXXb'.rsplit('XX', 1)", "'</think>a</think>b'.split('</think>')[-1]", "s.split('')", "s.split(1)", "lines.splitlines()", "lines.splitlines(true)", "'a\x0bb\x1cc\u2028d\x85e'.splitlines()", "''.splitlines()", "'\\n'.splitlines()",
      "s.startswith('He')", "s.startswith(('x', 'He'))", "s.startswith('W', 6)", "s.startswith('H', 0, 1)", "s.startswith('Hello', 0, 3)", "s.startswith('')", "s.startswith('', 50)", "s.endswith('ld')", "s.endswith(('a', 'b'))", "s.endswith('Hello', 0, 5)", "s.endswith('')", "s.startswith(['He'])", "s.startswith(1)", "s.startswith(none)",
      "s.replace('o', '0')", "s.replace('o', '0', 1)", "s.replace('', '-')", "s.replace('', '-', 3)", "'é'.replace('', '.')", "s.replace('zz', 'y')", "s.replace('l', '')", "'aaa'.replace('aa', 'b')", "s.replace('o')", "s.replace(1, 2)",
      "s.find('o')", "s.find('o', 5)", "s.find('zz')", "s.find('')", "s.find('', 99)", "s.rfind('o')", "s.rfind('o', 0, 5)", "s.rfind('zz')", "s.rfind('')", "emoji.find('b')", "emoji.rfind('b')", "s.index('W')", "s.index('zz')", "s.rindex('o')", "s.count('o')", "s.count('l', 4)", "s.count('')", "'aaaa'.count('aa')", "s.find('o', -4)", "s.find('W', 3, -2)",
      "','.join(strs)", "''.join([])", "', '.join(d)", "'-'.join('abc')", "'-'.join(nums)", "'-'.join(strs|map('upper'))", "','.join(1)", "'{}-{}'.format(1, 'a')", "'{1}{0}'.format('a', 'b')", "'{x}'.format(x=5)", "'{:>5}|{:<5}|{:^5}|'.format('a', 'b', 'c')", "'{:05d}|{:+d}|{:,}|{:x}|{:#x}|{:b}|{:o}|{:X}'.format(42, 7, 1234567, 255, 255, 5, 8, 255)",
      "'{:.2f}|{:8.3f}|{:e}|{:g}|{:%}|{:.1%}'.format(3.14159, 2.5, 12345.678, 0.0001, 0.25, 0.123)", "'{{}}'.format()", "'{!r}|{!s}'.format('a', 'b')", "'{:*^9}'.format('mid')", "'{:.3}'.format('abcdef')", "'{:>3}'.format(5)", "'{}'.format(none)", "'{}'.format([1, 'a'])", "'{:_}'.format(1234567)", "'{:,.2f}'.format(1234567.891)", "'{: d}'.format(5)", "'{:=+5d}'.format(3)", "'{}'.format(2.0)", "'{:.3g}'.format(1234.5)",
      "'{} {0}'.format(1)", "'{2}'.format(1)", "'{x}'.format(1)", "'{'.format()", "'}'.format()", "'{:d}'.format('a')", "'{:z9}'.format(1)", "'{:5}'.format(none)", "'{:s}'.format(1)", "'{:.2}'.format(1)", "'{:d}'.format(1.5)",
      "'abc'.isdigit()", "'123'.isdigit()", "'²'.isdigit()", "'²'.isdecimal()", "'½'.isnumeric()", "'٣'.isdigit()", "''.isdigit()", "'abc'.isalpha()", "'日本'.isalpha()", "'a1'.isalnum()", "'a 1'.isalnum()", "' \\t'.isspace()", "''.isspace()", "'ABC1'.isupper()", "'abc1'.islower()", "'Ab'.isupper()", "'1'.isupper()", "'Hello World'.istitle()", "'Hello world'.istitle()", "'abc'.isascii()", "'é'.isascii()", "'a_1'.isidentifier()", "'1a'.isidentifier()", "'a\\n'.isprintable()", "'ab'.isprintable()",
      "'prefix-x'.removeprefix('prefix-')", "'x'.removeprefix('y')", "'x.py'.removesuffix('.py')", "'x'.removesuffix('')", "'42'.zfill(5)", "'-42'.zfill(5)", "'abcdef'.zfill(3)", "'a'.ljust(4, '.')", "'a'.rjust(4)", "'a'.center(4, '*')", "'ab'.center(5, '*')", "'abc'.center(6, '*')", "'abcd'.center(7, '-')", "'a'.center(2, 'xy')", "'a=b=c'.partition('=')", "'a=b=c'.rpartition('=')", "'abc'.partition('=')", "'abc'.rpartition('=')", "'a'.partition('')",
      "s.upper().lower().title()", "s.nope()", "s.upper(1)", "s.strip(1)", "s.zfill('a')", "s.upper", "(s.upper)()", "s.strip('H', 'd')")
# ---- methods of lists and dicts --------------------------------------------------------------------------------------
exprs("nums.index(2)", "nums.index(9)", "nums.count(1)", "(1, 1, 2).count(1)", "(1, 2).index(2)", "d.get('a')", "d.get('zz')", "d.get('zz', 'x')", "d.get('zz', none)", "d.get('a', default=1)", "d.get()", "d.keys()|list", "d.values()|list", "d.items()|list", "d.items()|length", "d.copy()", "d.keys()|join(',')", "nums.copy()", "d.items() is iterable", "d.items() is sequence", "e.items()|list", "dd.get('items')", "{'a': 1}.get('a')",
      "dict(a=1, b=2)", "dict({'x': 1}, y=2)", "dict([['a', 1], ['b', 2]])", "dict()", "dict(1)", "dict([[1]])", "range(0)|list", "range(5, 0, -2)|list", "range(3)|last", "range(1, 2, 0)", "range('a')", "range(1.5)", "range(200000)", "range()", "range(true)|list", "{'a': 1, 'a': 2}", "{'a': 1, 'b': 2}|length", "{[1]: 2}", "[1, 2,]", "{'a': 1,}", "(1, 2,)")
# ---- filters ---------------------------------------------------------------------------------------------------------
exprs("s|upper", "s|lower", "n|upper", "missing|upper", "none|upper", "s|capitalize", "'foo-bar baz(qux) [x] {y} <z>'|title", "uni|title", "\"they're x\"|title", "none|title", "s|trim", "pad|trim", "'xxaxx'|trim('x')", "missing|trim", "n|trim", "nums|trim", "s|length", "nums|length", "d|length", "emoji|length", "missing|length", "n|length", "none|length", "s|count",
      "missing|default('x')", "missing|default", "none|default('x')", "none|default('x', true)", "''|default('x', boolean=true)", "0|default(5, true)", "missing|d('y')", "s|default('x')", "missing.a|default('x')", "d.zz|default(default_value='q')", "(1 if no)|default('u')", "missing|default(missing2)", "missing|default(1, 2, 3)",
      "nums|first", "nums|last", "[]|first", "[]|last", "s|first", "s|last", "''|first", "d|first", "d|last", "missing|first", "missing|last", "n|first", "range(3)|first", "d.items()|first", "emoji|last", "([]|first) is defined",
      "nums|join", "nums|join(', ')", "nums|join(d='-')", "strs|join(1)", "people|join(', ', attribute='name')", "people|join(', ', 'age')", "mixed|join('|')", "s|join('.')", "missing|join", "n|join", "d|join", "[none, true, 1.0]|join(' ')", "people|join('-', attribute='pet.k')",
      "nums|sort", "strs|sort", "strs|sort(case_sensitive=true)", "nums|sort(reverse=true)", "nums|sort(true)", "people|sort(attribute='age')|map(attribute='name')|list", "people|sort(attribute='age,name')|map(attribute='name')|list", "people|sort(attribute='name', reverse=true)|map(attribute='name')|list", "people|sort(attribute='age', reverse=true)|map(attribute='name')|list", "mixed|sort", "d|sort", "s|sort|join", "[]|sort", "[1, 2.5, true]|sort", "[none, none]|sort", "[nothing, 1]|sort", "people|sort",
      "d|dictsort", "d|dictsort(true)", "d|dictsort(by='value')", "d|dictsort(reverse=true)", "d|dictsort(false, 'value', true)", "d|dictsort(by='x')", "nums|dictsort", "missing|dictsort", "d|items|list", "d|items", "missing|items|list", "nums|items|list", "d|list", "s|list", "range(3)|list", "missing|list", "n|list", "none|list", "emoji|list", "d.items()|list",
      "[1, 2, 1, 3, 2]|unique|list", "strs|unique|list", "['a', 'A', 'b']|unique|list", "['a', 'A']|unique(true)|list", "people|unique(attribute='age')|map(attribute='name')|list", "[[1], [1]]|unique|list", "[1, 1.0, true]|unique|list", "nums|reverse|list", "s|reverse", "nums|reverse", "nums|reverse|length", "d|reverse|list", "emoji|reverse", "n|reverse", "(1, 2)|reverse|first",
      "nums|min", "nums|max", "strs|min", "strs|max", "['b', 'A']|min(case_sensitive=true)", "[]|min", "[]|max is defined", "people|max(attribute='age')", "people|min(attribute='name')", "nums|sum", "floats|sum", "people|sum(attribute='age')", "nums|sum(start=10)", "strs|sum", "nested|sum(start=[])", "[]|sum", "[1, none]|sum",
      "strs|map('upper')|list", "strs|map('replace', 'a', 'X')|list", "people|map(attribute='name')|join(',')", "people|map(attribute='pet')|list", "people|map(attribute='pet.k', default=0)|list", "people|map(attribute='zz')|list", "people|map(attribute='zz')|join('|')", "people|map('attr', 'name')|list", "nested|map('first')|list", "nested|map(attribute=1)|list", "nested|map(attribute='0')|list", "strs|map('nope')|list", "strs|map|list", "[]|map|list", "none|map('upper')|list", "strs|map(attribute='a', x=1)|list", "nums|map('string')|join(',')", "n|map('upper')|list", "strs|map('upper')", "strs|map('default', 'q')|list", "strs|map(1)|list",
      "nums|select|list", "[0, 1, '', none, 'a']|select|list", "nums|select('odd')|list", "nums|select('gt', 1)|list", "nums|select('>', 1)|list", "nums|reject('odd')|list", "[0, 1]|reject|list", "nums|select('nope')|list", "people|selectattr('pet')|map(attribute='name')|list", "people|selectattr('age', 'equalto', 30)|map(attribute='name')|list", "people|selectattr('pet', 'defined')|list|length", "people|rejectattr('pet', 'defined')|map(attribute='name')|list", "people|rejectattr('age', '==', 30)|map(attribute='name')|list", "people|selectattr('pet.k', 'eq', 2)|map(attribute='name')|list", "people|selectattr|list", "people|selectattr('name', 'in', ['Bob', 'Carl'])|list|length", "messages|selectattr('role', 'equalto', 'user')|list|length", "messages|selectattr('role', '==', 'user')|first", "mixed|select('string')|list", "mixed|select('number')|list", "mixed|reject('none')|list|length", "missing|select|list", "none|select|list", "n|select|list", "strs|select('in', 'abc')|list", "messages|selectattr('content', 'string')|map(attribute='role')|list", "[]|selectattr|list", "messages|rejectattr('role', 'equalto', 'system')|list|length", "nums|select('odd')|length", "nums|select('odd') is iterable", "(nums|select('odd'))[0]", "nums|select('odd')|last", "nums|select('odd')",
      "people|groupby('age')", "people|groupby('age')|map(attribute='grouper')|list", "(people|groupby('age'))[0].list|length", "people|groupby('pet.k', default=9)|map('first')|list", "people|groupby('name')|map(attribute=0)|list", "nums|batch(2)|list", "nums|batch(2, 0)|list", "nums|slice(2)|list", "nums|slice(2, 'x')|list", "nums|slice(0)|list", "range(7)|slice(3)|list", "range(7)|batch(3, none)|list",
      "neg|abs", "f|abs", "-2.5|abs", "(-2.5)|abs", "s|abs", "yes|abs", "2.5|round", "3.5|round", "2.567|round(2)", "2.567|round(1, 'ceil')", "2.567|round(1, 'floor')", "42|round", "1234|round(-2)", "2.5|round(method='ceil')", "2.5|round(method='x')", "s|round", "0.5|round", "1.005|round(2)", "1e300|round(2)", "(2.5|round)|int", "3|round(1, 'floor')",
      "'42'|int", "'42.7'|int", "'x'|int", "'x'|int(5)", "'x'|int(default=-1)", "''|int", "'0x1f'|int(base=16)", "'1f'|int(0, 16)", "'0b11'|int(0, 2)", "'0x10'|int(0, 0)", "f|int", "-2.7|int", "none|int", "nums|int", "missing|int", "yes|int", "' 7 '|int", "'1_000'|int", "'1__0'|int", "'-5'|int", "'+5'|int", "'1e3'|int", "'٣'|int", "'inf'|int", "'nan'|int", "'9' * 5|int", "'--5'|int",
      "'1.5'|float", "'x'|float", "'x'|float(2.5)", "n|float", "none|float", "'1e3'|float", "'inf'|float", "'-nan'|float", "missing|float", "yes|float", "' 2 '|float", "'1_0.5'|float", "'0x1'|float", "''|float('z')", "n|string", "f|string", "none|string", "nums|string", "missing|string", "d|string", "yes|string + '!'", "n|string|length",
      "html|e", "html|escape", "html|safe", "(html|safe) + '<b>'", "'<b>' + (html|safe)", "(html|safe) ~ '<b>'", "html|e|e", "html|e|forceescape", "(html|e)|upper", "(html|safe)|length", "[html|safe]", "(html|safe)|string + '<'", "(html|safe)|replace('a', '<') + '<'", "(html|safe).replace('a', '<')", "(html|safe)[0:2] + '<'", "(html|safe)|trim + '<'", "(html|safe) * 2 + '<'", "(html|safe) is string", "(html|safe) is escaped", "html is escaped", "(html|safe)|tojson", "(html|safe) == html", "(html|safe).split('=')[0] + '<'", "(html|safe)|default('') + '&'", "n|e", "missing|e", "(html|safe)|join('-') + '<'", "nums|safe",
      "s|replace('o', '0')", "s|replace('o', '0', 1)", "s|replace(old='l', new='L', count=1)", "n|replace(7, 8)", "s|replace('o', none)", "missing|replace('a', 'b')", "s|replace('a')", "s|wordcount", "'a-b c_d é1'|wordcount", "''|wordcount", "s|center(21)", "s|center", "s|center(3)", "'%s-%s'|format(1, 2)", "'%(a)s'|format(a=1)", "'%s'|format(1, a=2)", "'%.2f'|format(f)", "s|truncate(8)", "s|truncate(5)", "'a very long text that goes on'|truncate(15)", "'a very long text that goes on'|truncate(15, true)", "'a very long text that goes on'|truncate(15, end='…')", "'abcdefghijklmnop'|truncate(8, leeway=0)", "'abc defghijklmnop'|truncate(8, false, '..', 0)", "s|truncate(2)",
      "lines|indent", "lines|indent(2)", "lines|indent(2, true)", "lines|indent(width=2, first=true, blank=true)", "'a\\n\\nb'|indent(1)", "'a\\n\\nb'|indent(1, blank=true)", "'a\\nb'|indent('>>')", "''|indent(first=true)", "n|indent", "'a\\n'|indent(2)", "s|attr('upper')", "d|attr('a')", "d|attr('items')", "missing|attr('a')",
      "d|tojson", "nums|tojson", "mixed|tojson", "s|tojson", "html|tojson", "uni|tojson", "emoji|tojson", "esc|tojson", "n|tojson", "f|tojson", "whole|tojson", "tiny|tojson", "huge|tojson", "none|tojson", "yes|tojson", "[]|tojson", "{}|tojson", "{'a': []}|tojson(indent=2)", "tools|tojson", "tools|tojson(indent=4)", "tools[0]|tojson(indent=1)", "d|tojson(indent=0)", "d|tojson(indent='--')", "d|tojson(sort_keys=true)", "d|tojson(separators=(',', ':'))", "emoji|tojson(ensure_ascii=true)", "uni|tojson(true)", "d|tojson(false, 2, none, true)", "(1, 2)|tojson", "{1: 2, none: 3, true: 4, 1.5: 5}|tojson", "{(1, 2): 3}|tojson", "missing|tojson", "d.zz|tojson", "range(3)|tojson", "d.keys()|tojson", "nums|map('string')|tojson", "[missing]|tojson", "messages|tojson", "messages[2].tool_calls|tojson", "d|tojson(nope=1)", "{'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true, indent=2)", "['\\u2028', '\\x7f']|tojson", "[1e400, -1e400]|tojson", "d|tojson(separators=[',', ':'], indent=2)", "d|tojson|length", "'a/b'|tojson", "[{}]|tojson(indent=2)", "[[], [1]]|tojson(indent=2)",
      "s|upper|lower|title", "s|nope", "s|upper(1)", "s|replace", "s|length|string + 'x'", "-1|abs", "1 + 2|string|length", "s|upper if yes else s|lower", "nums|length > 2", "not nums|length", "s|default('x')|upper|replace('L', 'l')", "(nums|join(','))|length", "s|upper()", "'a'|upper ~ 'b'|upper", "[s|upper, s|lower]", "nums|first + nums|last", "s|lower in ['hello world']", "nums|select('odd')|map('string')|list")
# ---- tests -----------------------------------------------------------------------------------------------------------
for value in ("s", "n", "f", "yes", "none", "missing", "nums", "d", "(1, 2)", "range(2)", "d.items()", "s.upper", "empty", "html|safe", "namespace()", "nums|map('string')"):
    add("".join("{{ %s is %s }} " % (value, t) for t in ("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable", "callable", "escaped")))
exprs("4 is even", "3 is odd", "3 is even", "2.0 is even", "s is even", "missing is even", "9 is divisibleby 3", "9 is divisibleby(2)", "9 is divisibleby 0", "1 is eq 1", "1 is equalto 1.0", "1 is ne 2", "1 is lt 2", "1 is lessthan(2)", "2 is gt 1", "2 is greaterthan 1", "1 is le 1", "1 is ge 2", "1 is lt 'a'", "1 is in nums", "9 is in nums", "'a' is in 'abc'", "1 is not in nums", "s is not none", "s is not string", "missing is not defined",
      "none is sameas none", "yes is sameas true", "1 is sameas true", "1 is sameas 1.0", "nums is sameas nums", "[] is sameas []", "'abc' is lower", "'ABC' is upper", "'Abc' is lower", "n is lower", "missing is upper", "'upper' is filter", "'nope' is filter", "'odd' is test", "'nope' is test", "s is nope", "1 is eq 1 and 2 is eq 2", "s is string and n is number", "not s is string", "s is defined and s", "s is string is defined", "1 is even or 2 is even", "s is defined == true", "s is string if yes", "nums is sequence and nums is not string", "messages[0].content is string", "messages[4].content is none", "messages[5].content is iterable and messages[5].content is not string", "s is eq 'Hello' + ' World'", "d is mapping", "3 is divisibleby n - 4", "s is in(['Hello World'])", "n is eq(7)", "'' is eq ''", "s.zz is defined", "d.items is defined", "loop is defined", "messages is iterable", "tools is none", "documents is none", "documents is defined", "add_generation_prompt is true", "s is true", "1 is true", "0 is false", "no is false", "none is false")
# ---- if, for, set ----------------------------------------------------------------------------------------------------
add("{% if yes %}a{% endif %}", "{% if no %}a{% else %}b{% endif %}", "{% if no %}a{% elif yes %}b{% else %}c{% endif %}", "{% if no %}a{% elif no %}b{% elif n %}c{% endif %}", "{% if missing %}a{% else %}b{% endif %}", "{% if s and n %}x{% endif %}", "{% if nums %}x{% endif %}{% if none_list %}y{% endif %}", "{% if 0.0 %}a{% endif %}{% if '0' %}b{% endif %}", "{% if yes: %}a{% endif %}", "{% if 1, 0 %}t{% endif %}", "{% if yes %}{% set q = 1 %}{% endif %}{{ q }}", "{% if no %}{% set q = 1 %}{% endif %}{{ q }}",
    "{% for x in nums %}{{ x }}{% endfor %}", "{% for x in nums %}{{ x }}{% else %}e{% endfor %}", "{% for x in [] %}{{ x }}{% else %}e{% endfor %}", "{% for x in s %}{{ x }}.{% endfor %}", "{% for x in d %}{{ x }}{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|items %}{{ k }}{{ v }}{% endfor %}", "{% for k, v in d|dictsort %}{{ k }}{{ v }}{% endfor %}", "{% for a, b in nested %}{{ a }}-{{ b }} {% endfor %}", "{% for (a, b) in nested %}{{ a }}{{ b }}{% endfor %}", "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in nums %}{% endfor %}", "{% for a, b, c in nested %}{% endfor %}", "{% for a, b in ['xy'] %}{{ b }}{{ a }}{% endfor %}",
    "{% for x in missing %}{{ x }}{% else %}e{% endfor %}", "{% for x in n %}{% endfor %}", "{% for x in none %}{% endfor %}", "{% for x in missing.a %}{% endfor %}", "{% for x in range(3) %}{{ x }}{% endfor %}", "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}", "{% for x in nums if x > 1 %}{{ x }}{% endfor %}", "{% for x in nums if x > 9 %}{{ x }}{% else %}none{% endfor %}", "{% for x in nums if x is odd %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{% endfor %}", "{% for k, v in d.items() if v > 1 %}{{ k }}{{ loop.revindex }}{% endfor %}", "{% for x in nums %}{{ x }}{% endfor %}{{ x }}", "{% set x = 9 %}{% for x in nums %}{{ x }}{% endfor %}{{ x }}", "{% for x in nums|select('odd') %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "{% for nums in nums %}{{ nums }}{% endfor %}{{ nums }}",
    "{% for x in strs %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}", "{% for x in nums %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in nums %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}", "{% for x in nums %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}", "{% for x in nums %}{{ loop.nope }}{% endfor %}", "{% for x in nums %}{{ loop.cycle() }}{% endfor %}", "{{ loop }}", "{% for x in nested %}{% for y in x %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}", "{% for x in nested %}{% set outer = loop %}{% for y in x %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}", "{% for x in nums %}{% if loop.first %}F{% elif loop.last %}L{% else %}M{% endif %}{% endfor %}", "{% for x in nums %}{{ loop['index'] }}{% endfor %}", "{% for x in nums %}{{ x }}{{ ', ' if not loop.last }}{% endfor %}", "{% for m in messages %}{{ loop.nextitem.role if loop.nextitem else '-' }}{% endfor %}", "{% for x in nums %}{% for y in nums if y > loop.index0 %}{{ y }}{% endfor %};{% endfor %}", "{% for x in nums %}{{ loop.index0 + 1 == loop.length }}{% endfor %}", "{% for loop in nums %}{% endfor %}",
    "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in nums %}{% break %}{% else %}e{% endfor %}", "{% for x in nums %}{% continue %}{% else %}e{% endfor %}", "{% for x in nums %}{% if loop.last %}{% break %}{% endif %}{% else %}e{% endfor %}", "{% for x in nested %}{% for y in x %}{% break %}{% endfor %}{{ x[1] }}{% endfor %}", "{% break %}", "{% continue %}", "{% for x in nums %}{% with %}{% break %}{% endwith %}{% endfor %}ok", "{% for x in nums %}{{ x }}{% if x == 1 %}{% break %}{% endif %},{% endfor %}",
    "{% for t in tree recursive %}{{ t.v }}{{ loop.depth }}{% if t.c %}[{{ loop(t.c) }}]{% endif %}{% endfor %}", "{% for t in tree recursive %}{{ loop.index }}{{ loop(t.c) }}{% else %}.{% endfor %}", "{% for t in tree %}{{ loop(t.c) }}{% endfor %}", "{% for x in nums recursive %}{{ loop() }}{% endfor %}",
    "{% set a = 1 %}{{ a }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = b = 1 %}", "{% set (a, b) = [1, 2] %}{{ b }}", "{% set a, b = 'xy' %}{{ a }}{{ b }}", "{% set a, b = 1 %}", "{% set a, b = 1, 2, 3 %}", "{% set a = 1, 2 %}{{ a }}", "{% set a = s if no %}{{ a is defined }}", "{% set a %}x{{ n }}y{% endset %}[{{ a }}]", "{% set a | upper %}x{{ s }}{% endset %}{{ a }}", "{% set a | replace('x', 'y') | upper %}xx{% endset %}{{ a }}", "{% set a %}{% set b = 1 %}{{ b }}{% endset %}{{ a }}{{ b }}", "{% set a %}{% endset %}[{{ a }}]{{ a is string }}", "{% set a, b %}xy{% endset %}{{ a }}{{ b }}",
    "{% set x = 1 %}{% for i in nums %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}", "{% for i in nums %}{% set y = i %}{% endfor %}{{ y is defined }}", "{% for i in nums %}{% if loop.first %}{% set z = i %}{% endif %}{{ z }}.{% endfor %}", "{% set ns = namespace(c=0) %}{% for i in nums %}{% set ns.c = ns.c + i %}{% endfor %}{{ ns.c }}", "{% set ns = namespace() %}{% set ns.a = 'x' %}{{ ns.a }}{{ ns.b is defined }}", "{% set ns = namespace(d) %}{{ ns.a }}{{ ns.C }}", "{% set ns = namespace({'x': 1}, y=2) %}{{ ns.x + ns.y }}", "{% set d.a = 5 %}", "{% set missing.a = 5 %}", "{% set ns = namespace(a=1) %}{% set ns.a, q = 7, 8 %}{{ ns.a }}{{ q }}", "{% set ns = namespace(a=1) %}{{ ns['a'] }}{{ ns }}", "{% set ns = namespace(l=[]) %}{% for i in nums %}{% set ns.l = ns.l + [i * 2] %}{% endfor %}{{ ns.l }}", "{% set ns = namespace(found=false) %}{% for m in messages if not ns.found %}{{ m.role }}{% if m.role == 'user' %}{% set ns.found = true %}{% endif %} {% endfor %}",
    "{% set true = 1 %}", "{% set 1 = 2 %}", "{% set a.b.c = 1 %}", "{% set 'a' = 1 %}", "{% set a = %}", "{% set %}", "{% set a", "{% set messages = messages[1:] %}{{ messages|length }}{{ messages[0].role }}", "{{ bos_token }}{% set bos_token = 'z' %}{{ bos_token }}",
    "{% set gen = nums|select('odd') %}{{ gen|list }}{{ gen|list }}", "{% set gen = nums|map('string') %}{{ gen|first }}{{ gen|first }}{{ gen|list }}", "{% set gen = nums|reject('odd') %}{% for x in gen %}{{ x }}{% endfor %}{% for x in gen %}{{ x }}{% endfor %}.", "{% set gen = nums|map('string') %}{% for x in gen %}{{ x }}{% break %}{% endfor %}{{ gen|list }}", "{% if []|select %}generators are true{% endif %}", "{% set r = nums|reverse %}{{ r|list }}{{ r|list }}", "{% set i = d|items %}{{ i|list }}{{ i|list|length }}", "{{ 2 in (nums|map('int')) }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}", "{% with (a, b) = (1, 2) %}{{ a + b }}{% endwith %}", "{% print s, n %}", "{% print s %}", "{% filter upper %}abc{{ s }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}banana{% endfilter %}", "{% filter trim %}  x {% set q = 1 %}{% endfilter %}{{ q }}", "{% filter nope %}a{% endfilter %}", "{% filter indent(2) %}a\nb\n{% endfilter %}|")
# ---- macros ----------------------------------------------------------------------------------------------------------
add("{% macro m() %}x{% endmacro %}{{ m() }}{{ m() }}", "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(1) }}{{ m(a=2) }}{{ m() }}", "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 5) }} {{ m(1, c=7) }} {{ m(c=3, a=4) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}", "{% macro m(a, a2) %}{{ a }}{{ a2 is defined }}{% endmacro %}{{ m(1) }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{{ m() }}", "{% macro m(a) %}{{ a }}{{ varargs|join(',') }}{% endmacro %}{{ m(1, 2, 3) }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(x) %}{{ x }}{% if x > 0 %}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "{% macro m() %}{{ q }}{% endmacro %}{% set q = 5 %}{{ m() }}", "{% macro m() %}{{ q is defined }}{% endmacro %}{% for q in nums %}{{ m() }}{% endfor %}", "{% macro m() %}{% set q = 1 %}{% endmacro %}{{ m() }}{{ q is defined }}", "{% for x in nums %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro m() %} x {% endmacro %}{{ m()|trim|length }}{{ m() is string }}", "{% macro m(x) %}{% for i in x %}{{ i }}{% endfor %}{% endmacro %}{{ m(nums) ~ m('ab') }}", "{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% macro m(x='é') %}{{ x|upper }}{% endmacro %}{{ m() }}{{ m is callable }}", "{% macro m(a, b) %}{{ a }}-{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(5, **{'b': 6}) }}{{ m(*[7], b=8) }}", "{% macro m(a, b=2) %}{% endmacro %}{{ m.name }}{{ m.arguments }}", "{{ namespace(_a=1) }}", "{% set ns = namespace() %}{% set ns._a = 1 %}", "{{ dict is callable }}{{ dict(d, z=1) }}", "{% macro m() %}{{ loop is defined }}{% endmacro %}{% for x in nums %}{{ m() }}{% endfor %}", "{% if yes %}{% macro m() %}in{% endmacro %}{% endif %}{{ m() }}",
    "{% macro box() %}[{{ caller() }}]{% endmacro %}{% call box() %}in{{ n }}{% endcall %}", "{% macro each(l) %}{% for x in l %}{{ caller(x) }};{% endfor %}{% endmacro %}{% call(v) each(nums) %}<{{ v }}>{% endcall %}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m(a) %}{{ a }}{{ caller(b=2) }}{% endmacro %}{% call(a=1, b=5) m(9) %}{{ a }}{{ b }}{% endcall %}", "{% call s %}{% endcall %}", "{% set q = 1 %}{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ q }}{% set q = 2 %}{{ q }}{% endcall %}{{ q }}", "{% macro m(x) %}{{ x }}{% endmacro %}{{ [1, 2]|map('string')|join(m('-')) }}", "{% macro f(x) %}{{ x if x is string else x|tojson }}{% endmacro %}{{ f(s) }}{{ f(d) }}", "{% macro m(a, b=missing) %}{{ b is defined }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}")
# ---- what a scope knows of a name before it sets it --------------------------------------------------------------------
add("{% for x in [1] %}{{ n }}{% endfor %}{% set n = 1 %}{{ n }}", "{{ n }}{% for x in [1] %}{{ n }}{% endfor %}{% set n = 1 %}{{ n }}", "{% for x in [1] %}{{ n }}{% endfor %}{% if yes %}{% set n = 1 %}{% endif %}{{ n }}", "{% macro m() %}{{ n }}{% endmacro %}{{ m() }}{% set n = 1 %}{{ m() }}", "{% for x in nums %}{% for y in [1] %}{{ n }}{% endfor %}{% set n = x %}{{ n }},{% endfor %}{{ n }}", "{% set n %}{{ n }}{% endset %}[{{ n }}]", "{% set q %}{% for x in [1] %}{{ n }}{% endfor %}{% set n = 2 %}{{ n }}{% endset %}{{ q }}{{ n }}", "{% for x in [1] %}{{ s }}{% endfor %}{% if no %}{% set s = 1 %}{% else %}{% set s = 2 %}{% endif %}{{ s }}", "{% with n = n %}{{ n }}{% endwith %}{% with q = 1 %}{% for x in [1] %}{{ n }}{% endfor %}{% set n = 3 %}{{ n }}{% endwith %}{{ n }}", "{% macro m(a=n) %}{{ a }}{% set n = 5 %}{{ n }}{% endmacro %}{{ m() }}", "{% macro m() %}{% for x in [1] %}{{ n }}{% endfor %}{% set n = 5 %}{{ n }}{% endmacro %}{{ m() }}{{ n }}", "{% generation %}{% for x in [1] %}{{ n }}{% endfor %}{% set n = 5 %}{{ n }}{% endgeneration %}{{ n }}", "{% for x in [] %}{% else %}{% for y in [1] %}{{ n }}{% endfor %}{% set n = 1 %}{{ n }}{% endfor %}", "{% for x in nums if n %}{{ x }}{% endfor %}{% set n = 0 %}", "{% set n = n + 1 %}{{ n }}", "{% for x in nums %}{% set n = n + 1 %}{{ n }}{% endfor %}{{ n }}", "{% for x in [1] %}{{ m is defined }}{% endfor %}{% macro m() %}{% endmacro %}", "{% for x in [1] %}{{ add_generation_prompt }}{% endfor %}{% set add_generation_prompt = false %}", "{% for x in [1] %}{{ a }}{{ n }}{% endfor %}{% set a, n = 1, 2 %}", "{% filter upper %}{% for x in [1] %}{{ s }}{% endfor %}{% set s = 'q' %}{{ s }}{% endfilter %}")
# ---- generation, raise, strftime, others -----------------------------------------------------------------------------
add("{% generation %}x{{ s }}{% endgeneration %}", "a{% generation %}b{% set q = 1 %}{% endgeneration %}c{{ q is defined }}", "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ loop.index }}\n{% endgeneration %}{% else %}{{ m.role }}\n{% endif %}{% endfor %}", "  {% generation %}\n  x\n  {% endgeneration %}\ny", "{%- generation -%} x {%- endgeneration -%} y", "{% generation %}", "{% for x in nums %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "{{ raise_exception('bad ' ~ n) }}", "{% if no %}{{ raise_exception('x') }}{% endif %}ok", "{{ strftime_now('%Y-%m-%d %H:%M:%S') }}", "{{ strftime_now('%d %b %Y') }}", "{{ strftime_now('%A %B %-d, %j %p %I %y %% %f') }}", "{{ strftime_now('[%Z%z]') }}", "{{ strftime_now('') }}", "{{ strftime_now is defined }}{{ strftime_now is callable }}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.next() }}", "{% set j = joiner() %}{{ j() }}a{{ j() }}b", "{% set j = joiner('|') %}{% for x in nums %}{{ j() }}{{ x }}{% endfor %}", "{{ joiner }}{{ nope() }}", "{{ namespace is defined }}{{ range is callable }}", "{{ strftime_now(1) }}", "{{ messages|length }}{{ messages[-1].role }}{{ messages[-1]['content'][0].text }}", "{{ messages[0]['content'] + eos_token }}", "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}|{% endfor %}", "{{ messages[1].content.strip() ~ messages[2].reasoning_content.rstrip('\\n') }}", "{{ messages[4].content + 'x' }}", "{{ messages[0].content.foo }}", "{{ messages[9] }}", "{{ messages[9].role }}", "{% set m = messages[0] %}{{ m.role ~ m.content|length }}", "{% if messages[0].role == 'system' %}{% set loop_messages = messages[1:] %}{% set system = messages[0].content %}{% endif %}{{ system }}{{ loop_messages|length }}")
# ---- white space -----------------------------------------------------------------------------------------------------
add("a\n", "a\n\n", "\n", "", "a\r\nb\rc\n", "a\r\n", "{{ s }}\n", "{{ s }}\n\n", "{{ s }}\nx\n", "{% if yes %}\nx\n{% endif %}\n", "{% if yes %}\n\nx\n\n{% endif %}\n\ny", "  {% if yes %}  \n  x\n  {% endif %}  \n  y", "a  {% if yes %}  b  {% endif %}  c", "a\n  {%- if yes -%}  \n  b\n  {%- endif -%}\n  c", "a\n  {%+ if yes +%}\n  b\n  {%+ endif +%}\n  c", "  {{ s }}  \n  {{- s -}}  \n  x", "a {{- 1 }} b {{ 2 -}} c", "a {{+ 1 }} b", "a {{ 1 +}} b", "a\n  {# c #}\n  b", "a  {# c #}  b", "a\n  {#- c -#}\n  b", "a\n  {#+ c +#}\n  b", "{# c #}\nx", "{#\nmulti\n#}\nx", "a{# {{ x }} {% y %} #}b", "{# unclosed", "{#}#}x", "\t{% if yes %}\t\n\tx{% endif %}", "x\n\t {% set q = 1 %}\n\t {{ q }}", "{% set q = 1 %}   {{ q }}", " {% set q = 1 %} \n{{ q }}", "{% if yes %}{% endif %}\n\nx", "{{ s }}  {% if yes %}x{% endif %}", "\n  {% if yes %}x{% endif %}", "{{ '' }}\n  {% if yes %}x{% endif %}", "{% for x in nums %}\n  {{ x }}\n{% endfor %}", "{% for x in nums %}\n  {{- x }}\n{% endfor %}", "{%- for x in nums %}\n  {{ x }},\n{%- endfor %}\n", "{% for x in nums -%}\n  {{ x }}\n{%- endfor %}", "{% raw %}{{ x }}{% y %}{% endraw %}", "a\n  {% raw %}\n  {{ x }}\n  {% endraw %}\n  b", "a {%- raw -%} {{ x }} {%- endraw -%} b", "{% raw %}{# c #}{% endraw %}", "{% raw -%}\n x\n{% endraw %}\ny", "{% raw %}x", "{%raw%}a{%endraw%}b", "a\u00a0 {%- if yes %}b{% endif -%} \u2003c", "{% if yes -%}\n\n\n  x{% endif %}", "{%- if yes %}  x  {%- endif %}", "{% if yes %} {{- ' x ' -}} {% endif %}", "x {%- set q = 1 -%} y", "{{ 1 }}{{ 2 }}\n{{ 3 }}", "{{1}}{{-1}}{{- -1}}", "{{ {'a': {'b': 1}}['a']['b'] }}", "{{ {'a': 1}}}", "{{ {'a':{'b':2}}}}", "{{ '}}' }}{{ '%}' }}{{ \"{{\" }}", "{% if '%}' %}x{% endif %}", "{{ '{% if %}' }}", "{ {{ n }} }", "{{ n }}}", "{ % x % } {$ #}", "}} %} #}", "{{'a'}}{#-#}  b", "a  {#-#}  b", "{% if yes %}\r\nx\r\n{% endif %}\r\ny", "{{ 'a\r\nb' }}", "{{ 'a\rb' }}|{{ '\\r' }}", "{%if yes%}x{%endif%}", "{%\nif\nyes\n%}\nx\n{%\nendif\n%}\ny", "{{\n s \n}}", "{{ s\n  |upper\n  |lower }}", "   {%- if yes %}\n   x", "  {{ n }}\n  {% if yes %}\n  y\n  {% endif %}\n", "{% if yes +%}\nx{% endif %}", "{%+ if yes %}\nx{% endif %}", " {%+ if yes %}x{% endif %}", "x{% if yes %}\n{% endif %}y", "{% set a %}\n  x\n{% endset %}\n[{{ a }}]", "{% macro m() %}\n  x\n{% endmacro %}\n[{{ m() }}]", "{%- macro m() -%}\n  x\n{%- endmacro -%}\n[{{ m() }}]\n", "é\n  {% if yes %}é{% endif %}")
# ---- syntax errors ---------------------------------------------------------------------------------------------------
add("{{", "{{ }}", "{{ s", "{{ s }", "{% if %}x{% endif %}", "{% if yes %}x", "{% if yes %}x{% endfor %}", "{% endif %}", "{% for x %}{% endfor %}", "{% for x in %}{% endfor %}", "{% for in nums %}{% endfor %}", "{% nope %}", "{% %}", "{% if yes %}{% else %}{% else %}{% endif %}", "{% if yes %}{% elif %}{% endif %}", "{{ 1 + }}", "{{ + }}", "{{ (1 }}", "{{ 1) }}", "{{ [1, 2 }}", "{{ [1, 2) }}", "{{ {'a' 1} }}", "{{ {'a': } }}", "{{ 'abc }}", "{{ s. }}", "{{ s.1.2x }}", "{{ s[ }}", "{{ s[] }}", "{{ s| }}", "{{ s|1 }}", "{{ s is }}", "{{ s is 1 }}", "{{ s() ) }}", "{{ f(a=1, 2) }}", "{{ f(**d, 1) }}", "{{ f(*nums, 1) }}", "{{ f(a=1, a=2) }}", "{{ 1 if }}", "{{ not }}", "{{ s s }}", "{{ 1 2 }}", "{{ $ }}", "{{ s ? 1 : 2 }}", "{{ a && b }}", "{{ a || b }}", "{{ !a }}", "{{ 'a' + }}", "{{ s as t }}", "{% set a = 1 }}", "{{ a %}", "{% macro %}{% endmacro %}", "{% macro m %}{% endmacro %}", "{% macro m(1) %}{% endmacro %}", "{% call %}{% endcall %}", "{% filter %}{% endfilter %}", "{% for x in nums %}{% endfor x %}", "{% endgeneration %}", "{% do 1 %}", "{% set ns = namespace() %}{% set ns.a.b = 1 %}", "{{ 1.x }}", "{{ 1..2 }}", "{{ .5 }}", "{{ 5. }}", "{{ 1e }}", "{{ 0x }}", "{{ 007 }}", "{{ 1__0 }}", "{{ '\\x4' }}", "{{ '\\u12' }}", "{{ a := 1 }}", "{{ lambda x: x }}", "{{ [x for x in nums] }}", "{{ a.b = 1 }}", "{{ a; b }}", "{{ s[1:2:3:4] }}", "{{ s is not }}", "{{ in nums }}", "{{ nums[1 }}", "{% if a = 1 %}{% endif %}", "{{ @ }}", "{{ `a` }}", "{% else %}", "{% for x in nums recursive if x %}{% endfor %}", "{{ s|upper(}}", "{{ f(,) }}", "{{ [,] }}", "{{ (,) }}", "{{ {,} }}")


def environment():
    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

        def _text(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    class Namespace(jinja2.utils.Namespace):
        def __init__(*args, **kwargs):
            for name in dict(*args[1:], **kwargs):
                Namespace.check(name)
            jinja2.utils.Namespace.__init__(*args, **kwargs)

        def __setitem__(self, name, value):
            Namespace.check(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

        @staticmethod
        def check(name):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(name)

    env.filters["tojson"] = tojson
    env.globals["namespace"] = Namespace
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.datetime.fromtimestamp(NOW).strftime(form)
    return env


def as_transformers(messages):
    """What apply_chat_template does to messages first: null keys go, reasoning gets the names that templates read."""
    shown = []
    for message in messages:
        message = {k: v for k, v in message.items() if v is not None}
        reasoning = next((message[k] for k in ("reasoning_content", "thinking", "reasoning") if k in message), None)
        shown.append(message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning})
    return shown


def outcome(env, template):
    try:
        compiled = env.from_string(template)
    except Exception as e:  # whatever Jinja or Python raises is a refusal
        return [template, None, "compile", f"{type(e).__name__}: {e}"]
    try:
        text = compiled.render(messages=as_transformers(MESSAGES), tools=TOOLS, documents=None, add_generation_prompt=True, **VARS)
    except Exception as e:
        return [template, None, "render", f"{type(e).__name__}: {e}"]
    return [template, text]


def main():
    env = environment()
    unique = list(dict.fromkeys(CASES))
    cases = [outcome(env, t) for t in unique]
    # An address in the text: Jinja prints objects that this engine refuses to.
    cases = [c if c[1] is None or " at 0x" not in c[1] else [c[0], None, "render", "prints an address"] for c in cases]
    out = pathlib.Path(__file__).parent / "golden" / "cases.json"
    out.parent.mkdir(exist_ok=True)
    with out.open("w", encoding="utf-8") as f:
        head = json.dumps({"jinja2": jinja2.__version__, "now": NOW, "messages": MESSAGES, "tools": TOOLS, "vars": VARS}, ensure_ascii=True)
        f.write(head[:-1] + ',\n"cases": [\n')
        f.write(",\n".join(json.dumps(c, ensure_ascii=True) for c in cases) + "\n]}\n")
    refused = sum(c[1] is None for c in cases)
    print(f"{len(cases)} cases, {refused} of them refused, to {out}")


if __name__ == "__main__":
    main()
