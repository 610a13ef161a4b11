"""What elfutils 0.192 (Debian trixie) leaves out of its static ``libelf.a``: the search trees of its own ``libeu``.

Programs that load BPF are linked statically with it.  Where the linker misses these functions they come from here, made
of libc's ``tsearch``.  Without the locks that libelf can be built with: one thread reads the ELF file.
"""

from __future__ import annotations

MARK = "eu_search_tree_init"
"""What the linker names where they are missing."""

SOURCE = """\
#define _GNU_SOURCE
#include <search.h>

/* lib/eu-search.h of elfutils: the root, and a lock behind it where there is one. */
typedef struct { void *root; } search_tree;
typedef int (*comparison)(const void *, const void *);

void *eu_tsearch(const void *key, search_tree *tree, comparison compare) { return tsearch(key, &tree->root, compare); }
void *eu_tfind(const void *key, search_tree *tree, comparison compare) { return tfind(key, &tree->root, compare); }
void *eu_tdelete(const void *key, search_tree *tree, comparison compare) { return tdelete(key, &tree->root, compare); }

void eu_tdestroy(search_tree *tree, void (*release)(void *))
{
    tdestroy(tree->root, release);
    tree->root = 0;
}

void eu_search_tree_init(search_tree *tree) { tree->root = 0; }
void eu_search_tree_fini(search_tree *tree, void (*release)(void *)) { eu_tdestroy(tree, release); }
"""
