/* SPDX-License-Identifier: MIT
 *
 * The guest's first process: mount what is needed, start the guest agent, keep it running.
 *
 * The root is read-only and shared by all guests; everything written goes to memory. There is no
 * udev and no shell on the way: in nested virtualization under emulation each program that is
 * started costs a tenth of a second.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AGENT "org.qemu.guest_agent.0"
#define AGENT_LINK "/dev/virtio-ports/" AGENT

enum { POLL_MILLISECONDS = 20, RESPAWN_MILLISECONDS = 500, COMPLAIN_MILLISECONDS = 30000 };

struct mount_point {
    const char *type, *path, *options;
};

static const struct mount_point mounts[] = {
    { "tmpfs", "/run", "mode=0755" },
    { "tmpfs", "/tmp", "mode=1777" },
    { "tmpfs", "/mnt", "mode=0755" },
    { "tmpfs", "/var/tmp", "mode=1777" },
    { "tmpfs", "/var/lib", "mode=0755" },
    { "tmpfs", "/dev/shm", "mode=1777" },
    { "devpts", "/dev/pts", "mode=0620,ptmxmode=0666" },
};
static const char *const directories[] = { "/dev/shm", "/dev/pts", "/dev/virtio-ports" };
static const char *const later_directories[] = { "/run/lock", "/run/cryptsetup", "/mnt/test" };

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void say(const char *format, ...)
{
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    dprintf(STDOUT_FILENO, "%s\n", text);
}

static void pause_for(long milliseconds)
{
    const struct timespec length = { milliseconds / 1000, milliseconds % 1000 * 1000000L };
    nanosleep(&length, NULL);
}

static void write_text(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        say("guest init: write %s: %s", path, strerror(errno));
    if (file >= 0)
        close(file);
}

/* udev would find the port by name. Returns whether it was there, with its device file in `device`. */
static int find_agent_port(char *device, size_t size)
{
    DIR *ports = opendir("/sys/class/virtio-ports");
    struct dirent *entry;
    int found = 0;
    if (!ports)
        return 0;
    while (!found && (entry = readdir(ports))) {
        char path[PATH_MAX], name[128] = "";
        struct stat status;
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0)
            continue;
        if (read(file, name, sizeof name - 1) > 0) {
            name[strcspn(name, "\n")] = '\0';
            snprintf(device, size, "/dev/%s", entry->d_name);
            found = !strcmp(name, AGENT) && stat(device, &status) == 0;
        }
        close(file);
    }
    closedir(ports);
    return found;
}

static pid_t start_agent(void)
{
    pid_t child = fork();
    if (child == 0) {
        setsid();
        /* It must survive any lack of memory. What it starts inherits this, unless it is started
         * through /usr/lib/drbd-harness/killable. */
        write_text("/proc/self/oom_score_adj", "-1000");
        execl("/usr/sbin/qemu-ga", "qemu-ga", "--method=virtio-serial", "--path=" AGENT_LINK, "--statedir=/run",
              (char *)NULL);
        say("guest init: qemu-ga: %s", strerror(errno));
        _exit(127);
    }
    return child;
}

int main(void)
{
    char device[PATH_MAX];
    long waited = 0;

    int console = open("/dev/console", O_RDWR);
    if (console >= 0)
        for (int i = 0; i < 3; i++)
            dup2(console, i);
    umask(022);
    setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", "/root", 1);
    /* Without udev libdevmapper has to make its device nodes itself, and to wait for nobody. */
    setenv("DM_DISABLE_UDEV", "1", 1);

    for (size_t i = 0; i < COUNT(directories); i++)
        mkdir(directories[i], 0755);
    for (size_t i = 0; i < COUNT(mounts); i++)
        if (mount(mounts[i].type, mounts[i].path, mounts[i].type, 0, mounts[i].options))
            say("guest init: mount %s: %s", mounts[i].path, strerror(errno));
    for (size_t i = 0; i < COUNT(later_directories); i++)
        mkdir(later_directories[i], 0755);
    if (symlink("/proc/self/fd", "/dev/fd"))
        say("guest init: /dev/fd: %s", strerror(errno));

    /* The port can appear later than this program. */
    while (!find_agent_port(device, sizeof device)) {
        pause_for(POLL_MILLISECONDS);
        waited += POLL_MILLISECONDS;
        if (waited % COMPLAIN_MILLISECONDS == 0)
            say("guest init: still no virtio port with the name " AGENT);
    }
    if (symlink(device, AGENT_LINK))
        say("guest init: " AGENT_LINK ": %s", strerror(errno));
    /* From here on little is said, and all of it may be evidence: a program's segmentation fault is level 6. */
    write_text("/proc/sys/kernel/printk", "7");
    say("DRBD-HARNESS-GUEST-READY");

    for (pid_t agent = start_agent();;) {
        int status;
        pid_t ended = waitpid(-1, &status, 0);
        if (ended == agent || (ended < 0 && errno == ECHILD)) {
            say("guest init: qemu-ga ended with status 0x%x and is started again", status);
            pause_for(RESPAWN_MILLISECONDS);
            agent = start_agent();
        }
    }
}
