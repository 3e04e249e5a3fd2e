/* A libnvidia-ml.so.1 whose devices stand in a text file, for the real pynvml.
 *
 * The file named by $FAKE_NVML is read again whenever it was replaced. Lines:
 *   init CODE
 *   device INDEX UUID BUS TOTAL_MIB OTHER_USED_MIB UTILISATION MIG_MODE NAME        (-1: not supported)
 *   mig PARENT_UUID NUMBER UUID TOTAL_MIB NAME
 *   process UUID C|G|M PID USED_MIB                                               (-1: not available)
 *   error CALL UUID|* CODE                                                        (-1: hangs until the line is gone)
 * Programs add lines to $FAKE_NVML.uses, of which the last one of a pid and device counts while the pid lives:
 *   PID UUID USED_MIB
 *
 * As with the real library, the devices are those that were there at nvmlInit; one that has gone since is lost.
 * Compiled with -DOLD_DRIVER it lacks the calls that came later. */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HANGS = -1, SUCCESS = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };
enum { MAX_DEVICES = 128, MAX_PROCESSES = 4096, MAX_USES = 16384, MAX_ERRORS = 64, TEXT = 96 };
static const unsigned long long MIB = 1024 * 1024, NOT_AVAILABLE = ~0ULL;

typedef struct {
    char uuid[TEXT], parent[TEXT], bus[TEXT], name[TEXT];
    int number, mig_mode, utilization;
    long total_mib, other_mib;
} Device;

typedef struct {
    char uuid[TEXT], kind;
    int pid;
    long mib;
} Process;

typedef struct {
    char call[TEXT], uuid[TEXT];
    int code;
} Error;

typedef struct {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
} ProcessInfo;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Device devices[MAX_DEVICES];
static Process processes[MAX_PROCESSES], uses[MAX_USES];
static Error errors[MAX_ERRORS];
static int device_count, process_count, use_count, error_count, init_code;
static long uses_read;
static struct stat last;
static int users;                               /* of nvmlInit */
static char present[MAX_DEVICES][TEXT];         /* the GPUs that were there at nvmlInit */
static int present_count;
static char *handles[MAX_DEVICES * 8];          /* a handle is the address of a UUID that is kept here */
static int handle_count;

static void *handle_of(const char *uuid) {
    for (int i = 0; i < handle_count; i++)
        if (!strcmp(handles[i], uuid)) return handles[i];
    return handles[handle_count++] = strdup(uuid);
}

static void parse(char *line) {
    char kind[2];
    Device *d = &devices[device_count];
    Process *p = &processes[process_count];
    Error *e = &errors[error_count];
    memset(d, 0, sizeof *d);
    if (sscanf(line, "device %d %95s %95s %ld %ld %d %d %95[^\n]", &d->number, d->uuid, d->bus, &d->total_mib,
               &d->other_mib, &d->utilization, &d->mig_mode, d->name) == 8) device_count++;
    else if (sscanf(line, "mig %95s %d %95s %ld %95[^\n]", d->parent, &d->number, d->uuid, &d->total_mib, d->name) == 5)
        d->utilization = d->mig_mode = -1, device_count++;
    else if (sscanf(line, "process %95s %1s %d %ld", p->uuid, kind, &p->pid, &p->mib) == 4) p->kind = kind[0], process_count++;
    else if (sscanf(line, "error %95s %95s %d", e->call, e->uuid, &e->code) == 3) error_count++;
    else sscanf(line, "init %d", &init_code);
}

static void read_state(const char *path) {
    struct stat now;
    char line[512];
    if (stat(path, &now)) return;
    if (now.st_ino == last.st_ino && !memcmp(&now.st_mtim, &last.st_mtim, sizeof now.st_mtim)) return;
    FILE *file = fopen(path, "re");
    if (!file) return;
    last = now;
    device_count = process_count = error_count = init_code = 0;
    while (fgets(line, sizeof line, file)) parse(line);
    fclose(file);
}

static void note_use(const Process *found) {
    int i = 0;
    while (i < use_count && (uses[i].pid != found->pid || strcmp(uses[i].uuid, found->uuid))) i++;
    uses[i] = *found;
    if (i == use_count) use_count++;
}

static void read_uses(const char *path) {
    char name[4096], line[512];
    Process found = {.kind = 'C'};
    snprintf(name, sizeof name, "%s.uses", path);
    FILE *file = fopen(name, "re");
    if (!file) return;
    fseek(file, uses_read, SEEK_SET);
    while (fgets(line, sizeof line, file) && strchr(line, '\n')) {
        if (sscanf(line, "%d %95s %ld", &found.pid, found.uuid, &found.mib) == 3) note_use(&found);
        uses_read = ftell(file);
    }
    fclose(file);
}

static int is_alive(int pid) {
    char name[64], text[512], *end;
    if (kill(pid, 0) && errno == ESRCH) return 0;
    snprintf(name, sizeof name, "/proc/%d/stat", pid);
    FILE *file = fopen(name, "re");
    if (!file) return 0;
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    end = strrchr(text, ')');
    return end && end[2] != 'Z' && end[2] != 'X';
}

static void forget_the_dead(void) {
    int kept = 0;
    for (int i = 0; i < use_count; i++)
        if (uses[i].mib > 0 && is_alive(uses[i].pid)) uses[kept++] = uses[i];
    use_count = kept;
}

static void refresh(void) {
    static char path_read[4096];
    const char *path = getenv("FAKE_NVML");
    if (!path) return;
    if (strcmp(path, path_read)) {
        snprintf(path_read, sizeof path_read, "%s", path);
        last.st_ino = uses_read = use_count = 0;
    }
    read_state(path);
    read_uses(path);
}

static Device *find(const char *uuid) {
    for (int i = 0; i < device_count; i++)
        if (!strcmp(devices[i].uuid, uuid)) return &devices[i];
    return NULL;
}

static int code_of(const char *call, const char *uuid) {
    for (int i = 0; i < error_count; i++)
        if ((!strcmp(errors[i].call, "*") || !strcmp(errors[i].call, call)) &&
            (!strcmp(errors[i].uuid, "*") || !strcmp(errors[i].uuid, uuid)))
            return errors[i].code;
    return SUCCESS;
}

static int injected(const char *call, const char *uuid) {
    int code;
    while ((code = code_of(call, uuid)) == HANGS) {
        pthread_mutex_unlock(&lock);
        usleep(20000);
        pthread_mutex_lock(&lock);
        refresh();
    }
    return code;
}

/* The device behind a handle, or the error code of the call. */
static int look_up(const char *call, void *handle, Device **device) {
    refresh();
    if (!users) return UNINITIALIZED;
    if (!handle) return INVALID;
    int code = injected(call, handle);
    if (code) return code;
    *device = find(handle);
    return *device ? SUCCESS : LOST;
}

#define CALL(...) __attribute__((visibility("default"))) int __VA_ARGS__
#define BEGIN(handle) \
    Device *d; \
    pthread_mutex_lock(&lock); \
    int code = look_up(__func__, handle, &d); \
    if (!code) {
#define END \
    } \
    pthread_mutex_unlock(&lock); \
    return code;

CALL(nvmlInitWithFlags)(unsigned int flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    refresh();
    int code = init_code ? init_code : injected("nvmlInitWithFlags", "-");
    if (!code && !users++) {
        present_count = 0;
        for (int i = 0; i < device_count; i++)
            if (!*devices[i].parent) strcpy(present[present_count++], devices[i].uuid);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

CALL(nvmlShutdown)(void) {
    pthread_mutex_lock(&lock);
    int code = users ? (users--, SUCCESS) : UNINITIALIZED;
    pthread_mutex_unlock(&lock);
    return code;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(int code) {
    static __thread char text[32];
    snprintf(text, sizeof text, "error %d", code);
    return text;
}

CALL(nvmlDeviceGetCount_v2)(unsigned int *count) {
    pthread_mutex_lock(&lock);
    refresh();
    int code = users ? injected("nvmlDeviceGetCount_v2", "-") : UNINITIALIZED;
    *count = present_count;
    pthread_mutex_unlock(&lock);
    return code;
}

CALL(nvmlDeviceGetHandleByIndex_v2)(unsigned int index, void **handle) {
    if ((int)index >= present_count) return INVALID;
    BEGIN(handle_of(present[index]))
        *handle = handle_of(d->uuid);
    END
}

CALL(nvmlDeviceGetIndex)(void *handle, unsigned int *index) {
    BEGIN(handle)
        *index = d->number;
    END
}

CALL(nvmlDeviceGetUUID)(void *handle, char *uuid, unsigned int size) {
    BEGIN(handle)
        snprintf(uuid, size, "%s", d->uuid);
    END
}

CALL(nvmlDeviceGetName)(void *handle, char *name, unsigned int size) {
    BEGIN(handle)
        snprintf(name, size, "%s", d->name);
    END
}

CALL(nvmlDeviceGetPciInfo_v3)(void *handle, void *info) {
    BEGIN(handle)
        memset(info, 0, 68);
        snprintf((char *)info + 36, 32, "%.31s", d->bus); /* busId, after the short one and five numbers */
    END
}

static unsigned long long used(const Device *d) {
    long mib = d->other_mib;
    for (int i = 0; i < process_count; i++)
        if (!strcmp(processes[i].uuid, d->uuid) && processes[i].mib > 0) mib += processes[i].mib;
    for (int i = 0; i < use_count; i++)
        if (!strcmp(uses[i].uuid, d->uuid)) mib += uses[i].mib;
    return (mib < d->total_mib ? mib : d->total_mib) * MIB;
}

CALL(nvmlDeviceGetMemoryInfo)(void *handle, unsigned long long *memory) {
    BEGIN(handle)
        forget_the_dead();
        memory[0] = d->total_mib * MIB, memory[2] = used(d), memory[1] = memory[0] - memory[2];
    END
}

CALL(nvmlDeviceGetUtilizationRates)(void *handle, unsigned int *rates) {
    BEGIN(handle)
        rates[0] = d->utilization, rates[1] = 0;
        if (d->utilization < 0) code = NOT_SUPPORTED;
    END
}

static int list(const Device *d, char kind, unsigned int *count, ProcessInfo *infos) {
    unsigned int room = infos ? *count : 0, found = 0;
    forget_the_dead();
    for (int i = 0; i < process_count + use_count; i++) {
        const Process *p = i < process_count ? &processes[i] : &uses[i - process_count];
        if (p->kind != kind || strcmp(p->uuid, d->uuid)) continue;
        if (found < room)
            infos[found] = (ProcessInfo){p->pid, p->mib < 0 ? NOT_AVAILABLE : p->mib * MIB, ~0u, ~0u};
        found++;
    }
    *count = found;
    return found > room ? TOO_SMALL : SUCCESS;
}

#define LIST(name, kind) \
    CALL(name)(void *handle, unsigned int *count, ProcessInfo *infos) { \
        BEGIN(handle) \
            code = list(d, kind, count, infos); \
        END \
    }

LIST(nvmlDeviceGetComputeRunningProcesses_v2, 'C')
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, 'G')

#ifndef OLD_DRIVER

LIST(nvmlDeviceGetComputeRunningProcesses_v3, 'C')
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, 'G')
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'M')

CALL(nvmlDeviceGetMemoryInfo_v2)(void *handle, void *info) {
    unsigned long long *memory = (unsigned long long *)info + 1; /* after the version */
    BEGIN(handle)
        forget_the_dead();
        memory[0] = d->total_mib * MIB, memory[1] = 0, memory[3] = used(d), memory[2] = memory[0] - memory[3];
    END
}

CALL(nvmlDeviceGetMigMode)(void *handle, unsigned int *current, unsigned int *pending) {
    BEGIN(handle)
        *current = *pending = d->mig_mode;
        if (d->mig_mode < 0) code = NOT_SUPPORTED;
    END
}

CALL(nvmlDeviceGetMaxMigDeviceCount)(void *handle, unsigned int *count) {
    BEGIN(handle)
        *count = 7;
    END
}

CALL(nvmlDeviceGetMigDeviceHandleByIndex)(void *handle, unsigned int number, void **instance) {
    BEGIN(handle)
        code = NOT_FOUND;
        for (int i = 0; i < device_count; i++)
            if (!strcmp(devices[i].parent, d->uuid) && devices[i].number == (int)number)
                *instance = handle_of(devices[i].uuid), code = SUCCESS;
    END
}

#endif
