/* SPDX-License-Identifier: MIT
 *
 * witness: what it says where it cannot watch.
 */
#ifndef WITNESS_SAID_H
#define WITNESS_SAID_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/libbpf.h>

/* Why something failed, as libbpf says it: the member that this kernel's types lack, else what it said last. */
static char said[256];
static bool lacks;

static void keep_line(const char *line)
{
    snprintf(said, sizeof said, "%.*s", (int)strcspn(line, "\n"), line);
}

static int keep_message(enum libbpf_print_level level, const char *format, va_list arguments)
{
    char *message;

    if (level != LIBBPF_WARN || lacks || vasprintf(&message, format, arguments) < 0)
        return 0;
    /* It is in the middle of the verifier's log, and what comes behind that only says that it failed. */
    char *relocation = strstr(message, "failed to resolve CO-RE relocation");
    lacks = relocation;
    keep_line(relocation ? relocation : message);
    free(message);
    return 0;
}

__attribute__((format(printf, 1, 2), noreturn)) static void unwatched(const char *format, ...)
{
    va_list arguments;

    printf("unwatched ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    exit(1);
}

#endif
