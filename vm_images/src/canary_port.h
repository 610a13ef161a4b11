/* SPDX-License-Identifier: MIT
 *
 * canary: the lines that go to the port.
 */
#ifndef CANARY_PORT_H
#define CANARY_PORT_H

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "canary_record.h"

/* Its own thread writes to the port: a port that nobody reads must not hold up a record. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    uint64_t head, tail;
    int closed;
    char lines[QUEUE_LINES][LINE_BYTES];
} queue = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .filled = PTHREAD_COND_INITIALIZER,
    .emptied = PTHREAD_COND_INITIALIZER,
};

static uint32_t crc32_of(uint32_t state, const char *text)
{
    for (state = ~state; *text; text++) {
        state ^= (unsigned char)*text;
        for (int bit = 0; bit < 8; bit++)
            state = state >> 1 ^ (state & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    return ~state;
}

/* When the queue is full, a line waits if `patient`; at the end, and else, it is left out: one acknowledgement too few
 * is no lie. */
__attribute__((format(printf, 2, 3))) static void say(int patient, const char *format, ...)
{
    char text[LINE_BYTES - 16], run[24];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    snprintf(run, sizeof run, "%016" PRIx64 " ", asked.run);
    uint32_t check = crc32_of(crc32_of(0, run), text);

    pthread_mutex_lock(&queue.lock);
    while (patient && !stopping && queue.tail - queue.head == QUEUE_LINES)
        pthread_cond_wait(&queue.emptied, &queue.lock);
    if (queue.tail - queue.head < QUEUE_LINES) {
        snprintf(queue.lines[queue.tail % QUEUE_LINES], LINE_BYTES, "%s %08" PRIx32 "\n", text, check);
        queue.tail++;
        pthread_cond_signal(&queue.filled);
    }
    pthread_mutex_unlock(&queue.lock);
}

/* A batch is put together only of lines that are in the queue, that is, of records that are safe already. */
static void *write_port(void *argument)
{
    int port = *(int *)argument;
    static char batch[BATCH_LINES * LINE_BYTES];
    for (;;) {
        size_t length = 0, written = 0;
        pthread_mutex_lock(&queue.lock);
        while (queue.head == queue.tail && !queue.closed)
            pthread_cond_wait(&queue.filled, &queue.lock);
        if (queue.head == queue.tail) {
            pthread_mutex_unlock(&queue.lock);
            return NULL;
        }
        for (int lines = 0; lines < BATCH_LINES && queue.head != queue.tail; lines++, queue.head++) {
            const char *line = queue.lines[queue.head % QUEUE_LINES];
            memcpy(batch + length, line, strlen(line));
            length += strlen(line);
        }
        int more = queue.head != queue.tail || queue.closed;
        pthread_cond_broadcast(&queue.emptied);
        pthread_mutex_unlock(&queue.lock);
        while (written < length) {
            ssize_t wrote = write(port, batch + written, length - written);
            if (wrote > 0)
                written += (size_t)wrote;
            else if (wrote == 0 || errno != EINTR)
                pause_for(RETRY_MS);
        }
        if (!more)
            pause_for(BATCH_MS);
    }
}

#endif
