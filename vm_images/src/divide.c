/* SPDX-License-Identifier: MIT
 *
 * divide: tell the kernel of partitions that no table on the disk describes.
 *
 *   divide DEVICE SECTORS...
 *
 * Partition 1 begins at sector 0 and has the first number of sectors (of 512 bytes), the next
 * one begins behind it, and so on; they end with the device. So a partition has the same block
 * numbers as the disk, and the disk carries nothing but what is written to its partitions.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(int count, char **arguments)
{
    long long start = 0;
    if (count < 3) {
        fprintf(stderr, "usage: divide DEVICE SECTORS...\n");
        return 2;
    }
    int device = open(arguments[1], O_RDONLY | O_CLOEXEC);
    if (device < 0) {
        fprintf(stderr, "divide: %s: %s\n", arguments[1], strerror(errno));
        return 1;
    }
    for (int number = 1; number + 1 < count; number++) {
        char *end;
        long long sectors = strtoll(arguments[number + 1], &end, 10);
        if (*end || sectors <= 0) {
            fprintf(stderr, "divide: '%s' is no number of sectors\n", arguments[number + 1]);
            return 2;
        }
        struct blkpg_partition partition = { .start = start * 512, .length = sectors * 512, .pno = number };
        struct blkpg_ioctl_arg request = {
            .op = BLKPG_ADD_PARTITION, .datalen = sizeof partition, .data = &partition
        };
        if (ioctl(device, BLKPG, &request)) {
            fprintf(stderr, "divide: partition %d of %s: %s\n", number, arguments[1], strerror(errno));
            return 1;
        }
        start += sectors;
    }
    return close(device) != 0;
}
