/* SPDX-License-Identifier: MIT
 *
 * The only program of the initrd: load a fixed list of kernel modules, wait for the root
 * device, mount it, and become its init.
 *
 * Under emulation a general initrd (udev, shell scripts, a compressed archive) costs more
 * time than the rest of a boot. This one knows that the root is a plain block device.
 *
 * From the kernel command line it takes root=DEVICE, rootfstype=TYPE (ext4), ro or rw,
 * init=PATH (/sbin/init). /modules.list names one module file per line, in loading order.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

enum { ROOT_WAIT_SECONDS = 120, POLL_MILLISECONDS = 10 };

static void say(const char *format, ...)
{
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    dprintf(STDERR_FILENO, "drbd-harness initrd: %s\n", text);
}

static void fail(const char *what, const char *which)
{
    say("%s %s: %s", what, which, strerror(errno));
    /* The kernel panics when its first process ends, which is what a lab wants to see. */
    exit(1);
}

static void load_module(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        say("open %s: %s", path, strerror(errno));
        return;
    }
    if (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST)
        say("load %s: %s", path, strerror(errno));
    close(file);
    unlink(path);
}

static void load_modules(void)
{
    char line[256];
    FILE *list = fopen("/modules.list", "re");
    if (!list)
        fail("open", "/modules.list");
    while (fgets(line, sizeof line, list)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0])
            load_module(line);
    }
    fclose(list);
}

struct options {
    char root[128], type[32], init[256];
    unsigned long flags;
};

static void read_command_line(struct options *options)
{
    char line[4096], *rest = line, *word;
    int file = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, line, sizeof line - 1);
    if (got < 0)
        fail("read", "/proc/cmdline");
    close(file);
    line[got] = '\0';
    *options = (struct options){ "/dev/vda", "ext4", "/sbin/init", MS_RDONLY };
    while ((word = strsep(&rest, " \n"))) {
        if (!strncmp(word, "root=", 5))
            snprintf(options->root, sizeof options->root, "%s", word + 5);
        else if (!strncmp(word, "rootfstype=", 11))
            snprintf(options->type, sizeof options->type, "%s", word + 11);
        else if (!strncmp(word, "init=", 5))
            snprintf(options->init, sizeof options->init, "%s", word + 5);
        else if (!strcmp(word, "rw"))
            options->flags &= ~(unsigned long)MS_RDONLY;
        else if (!strcmp(word, "ro"))
            options->flags |= MS_RDONLY;
    }
}

/* Opening one of these loads its module, which would make the node; without it nobody could open it. */
static const struct {
    const char *path;
    unsigned minor;
} static_nodes[] = {
    { "/dev/fuse", 229 },       { "/dev/btrfs-control", 234 }, { "/dev/mapper/control", 236 },
    { "/dev/loop-control", 237 }, { "/dev/vhost-net", 238 },   { "/dev/net/tun", 200 },
};

static void make_static_nodes(void)
{
    mkdir("/dev/mapper", 0755);
    mkdir("/dev/net", 0755);
    for (size_t i = 0; i < sizeof static_nodes / sizeof *static_nodes; i++)
        if (mknod(static_nodes[i].path, S_IFCHR | 0600, makedev(10, static_nodes[i].minor)) && errno != EEXIST)
            say("make %s: %s", static_nodes[i].path, strerror(errno));
}

static void wait_for(const char *path)
{
    const struct timespec pause = { 0, POLL_MILLISECONDS * 1000000L };
    struct stat found;
    for (long left = ROOT_WAIT_SECONDS * 1000L; stat(path, &found) != 0; left -= POLL_MILLISECONDS) {
        if (left <= 0)
            fail("the root device did not appear:", path);
        nanosleep(&pause, NULL);
    }
}

int main(void)
{
    struct options options;
    static const char *const kept[] = { "/dev", "/proc", "/sys" };

    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mkdir("/root", 0755);
    if (mount("proc", "/proc", "proc", 0, NULL) || mount("sysfs", "/sys", "sysfs", 0, NULL))
        fail("mount", "/proc and /sys");
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, "mode=0755") && errno != EBUSY)
        fail("mount", "/dev");

    make_static_nodes();
    read_command_line(&options);
    load_modules();
    wait_for(options.root);
    if (mount(options.root, "/root", options.type, options.flags, NULL))
        fail("mount the root", options.root);

    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        char target[64];
        snprintf(target, sizeof target, "/root%s", kept[i]);
        if (mount(kept[i], target, NULL, MS_MOVE, NULL))
            fail("move the mount", kept[i]);
    }
    unlink("/modules.list");
    unlink("/init");
    if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        fail("change to the root", options.root);
    execl(options.init, options.init, (char *)NULL);
    fail("run", options.init);
}
