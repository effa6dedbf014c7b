//! Default seccomp profile: the system calls that programs in containers need, and no other.
//!
//! All other calls fail with `EPERM`: they load code into the kernel, change the node's clock, mounts, namespaces or
//! devices, are long obsolete, or did not exist when this was written (for these runc answers `ENOSYS`). Calls that a
//! capability guards are allowed with it ([`guarded`]), as containerd and Docker do.
//! `clone3` fails with `ENOSYS`, so that libraries fall back to `clone`, whose flags can be checked.

mod guarded;

use oci_spec::{
    OciSpecError,
    runtime::{
        Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
        LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    },
};

/// Calls that are allowed with any arguments, by purpose.
const ALLOWED: [&[&str]; 10] = [
    // Files: names.
    &[
        "access",
        "chdir",
        "chmod",
        "chown",
        "chown32",
        "creat",
        "faccessat",
        "faccessat2",
        "fchdir",
        "fchmod",
        "fchmodat",
        "fchmodat2",
        "fchown",
        "fchown32",
        "fchownat",
        "getcwd",
        "lchown",
        "lchown32",
        "link",
        "linkat",
        "mkdir",
        "mkdirat",
        "mknod",
        "mknodat",
        "open",
        "openat",
        "openat2",
        "readlink",
        "readlinkat",
        "rename",
        "renameat",
        "renameat2",
        "rmdir",
        "symlink",
        "symlinkat",
        "truncate",
        "truncate64",
        "umask",
        "unlink",
        "unlinkat",
    ],
    // Files: metadata.
    &[
        "fgetxattr",
        "flistxattr",
        "fremovexattr",
        "fsetxattr",
        "fstat",
        "fstat64",
        "fstatat64",
        "fstatfs",
        "fstatfs64",
        "futimesat",
        "getdents",
        "getdents64",
        "getxattr",
        "lgetxattr",
        "listxattr",
        "llistxattr",
        "lremovexattr",
        "lsetxattr",
        "lstat",
        "lstat64",
        "newfstatat",
        "oldfstat",
        "oldlstat",
        "oldstat",
        "removexattr",
        "setxattr",
        "stat",
        "stat64",
        "statfs",
        "statfs64",
        "statx",
        "utime",
        "utimensat",
        "utimensat_time64",
        "utimes",
    ],
    // Files: content.
    &[
        "_llseek",
        "cachestat",
        "close",
        "close_range",
        "copy_file_range",
        "dup",
        "dup2",
        "dup3",
        "fadvise64",
        "fadvise64_64",
        "fallocate",
        "fcntl",
        "fcntl64",
        "fdatasync",
        "flock",
        "fsync",
        "ftruncate",
        "ftruncate64",
        "ioctl",
        "lseek",
        "pread64",
        "preadv",
        "preadv2",
        "pwrite64",
        "pwritev",
        "pwritev2",
        "read",
        "readahead",
        "readv",
        "sendfile",
        "sendfile64",
        "splice",
        "sync",
        "sync_file_range",
        "syncfs",
        "tee",
        "vmsplice",
        "write",
        "writev",
        "arm_fadvise64_64",
        "arm_sync_file_range",
        "sync_file_range2",
    ],
    // Waiting for files and events.
    &[
        "_newselect",
        "epoll_create",
        "epoll_create1",
        "epoll_ctl",
        "epoll_ctl_old",
        "epoll_pwait",
        "epoll_pwait2",
        "epoll_wait",
        "epoll_wait_old",
        "eventfd",
        "eventfd2",
        "fanotify_mark",
        "inotify_add_watch",
        "inotify_init",
        "inotify_init1",
        "inotify_rm_watch",
        "io_cancel",
        "io_destroy",
        "io_getevents",
        "io_pgetevents",
        "io_pgetevents_time64",
        "io_setup",
        "io_submit",
        "pipe",
        "pipe2",
        "poll",
        "ppoll",
        "ppoll_time64",
        "pselect6",
        "pselect6_time64",
        "select",
        "signalfd",
        "signalfd4",
    ],
    // Memory.
    &[
        "brk",
        "get_thread_area",
        "madvise",
        "map_shadow_stack",
        "membarrier",
        "memfd_create",
        "memfd_secret",
        "mincore",
        "mlock",
        "mlock2",
        "mlockall",
        "mmap",
        "mmap2",
        "mprotect",
        "mremap",
        "mseal",
        "msync",
        "munlock",
        "munlockall",
        "munmap",
        "pkey_alloc",
        "pkey_free",
        "pkey_mprotect",
        "process_mrelease",
        "remap_file_pages",
        "set_thread_area",
    ],
    // Processes and threads.
    &[
        "_exit",
        "alarm",
        "arch_prctl",
        "breakpoint",
        "cacheflush",
        "capget",
        "capset",
        "execve",
        "execveat",
        "exit",
        "exit_group",
        "fork",
        "futex",
        "futex_requeue",
        "futex_time64",
        "futex_wait",
        "futex_waitv",
        "futex_wake",
        "get_robust_list",
        "getcpu",
        "getpgid",
        "getpgrp",
        "getpid",
        "getppid",
        "getpriority",
        "getrlimit",
        "getrusage",
        "getsid",
        "gettid",
        "ioprio_get",
        "ioprio_set",
        "kill",
        "modify_ldt",
        "nice",
        "pause",
        "pidfd_open",
        "pidfd_send_signal",
        "prctl",
        "prlimit64",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "restart_syscall",
        "riscv_flush_icache",
        "rseq",
        "sched_get_priority_max",
        "sched_get_priority_min",
        "sched_getaffinity",
        "sched_getattr",
        "sched_getparam",
        "sched_getscheduler",
        "sched_rr_get_interval",
        "sched_rr_get_interval_time64",
        "sched_setaffinity",
        "sched_setattr",
        "sched_setparam",
        "sched_setscheduler",
        "sched_yield",
        "seccomp",
        "set_robust_list",
        "set_tid_address",
        "set_tls",
        "setpgid",
        "setpriority",
        "setrlimit",
        "setsid",
        "tgkill",
        "times",
        "tkill",
        "ugetrlimit",
        "uname",
        "vfork",
        "wait4",
        "waitid",
        "waitpid",
    ],
    // Users and groups.
    &[
        "getegid",
        "getegid32",
        "geteuid",
        "geteuid32",
        "getgid",
        "getgid32",
        "getgroups",
        "getgroups32",
        "getresgid",
        "getresgid32",
        "getresuid",
        "getresuid32",
        "getuid",
        "getuid32",
        "setfsgid",
        "setfsgid32",
        "setfsuid",
        "setfsuid32",
        "setgid",
        "setgid32",
        "setgroups",
        "setgroups32",
        "setregid",
        "setregid32",
        "setresgid",
        "setresgid32",
        "setresuid",
        "setresuid32",
        "setreuid",
        "setreuid32",
        "setuid",
        "setuid32",
    ],
    // Signals and time.
    &[
        "adjtimex",
        "clock_getres",
        "clock_getres_time64",
        "clock_gettime",
        "clock_gettime64",
        "clock_nanosleep",
        "clock_nanosleep_time64",
        "getitimer",
        "gettimeofday",
        "nanosleep",
        "rt_sigaction",
        "rt_sigpending",
        "rt_sigprocmask",
        "rt_sigqueueinfo",
        "rt_sigreturn",
        "rt_sigsuspend",
        "rt_sigtimedwait",
        "rt_sigtimedwait_time64",
        "rt_tgsigqueueinfo",
        "setitimer",
        "sigaction",
        "sigaltstack",
        "signal",
        "sigpending",
        "sigprocmask",
        "sigreturn",
        "sigsuspend",
        "time",
        "timer_create",
        "timer_delete",
        "timer_getoverrun",
        "timer_gettime",
        "timer_gettime64",
        "timer_settime",
        "timer_settime64",
        "timerfd_create",
        "timerfd_gettime",
        "timerfd_gettime64",
        "timerfd_settime",
        "timerfd_settime64",
    ],
    // Network and messages.
    &[
        "accept",
        "accept4",
        "bind",
        "connect",
        "getpeername",
        "getsockname",
        "getsockopt",
        "ipc",
        "listen",
        "mq_getsetattr",
        "mq_notify",
        "mq_open",
        "mq_timedreceive",
        "mq_timedreceive_time64",
        "mq_timedsend",
        "mq_timedsend_time64",
        "mq_unlink",
        "msgctl",
        "msgget",
        "msgrcv",
        "msgsnd",
        "recv",
        "recvfrom",
        "recvmmsg",
        "recvmmsg_time64",
        "recvmsg",
        "semctl",
        "semget",
        "semop",
        "semtimedop",
        "semtimedop_time64",
        "send",
        "sendmmsg",
        "sendmsg",
        "sendto",
        "setsockopt",
        "shmat",
        "shmctl",
        "shmdt",
        "shmget",
        "shutdown",
        "socketcall",
        "socketpair",
    ],
    // The rest: randomness, system information, and sandboxes that a program builds for itself.
    &[
        "getrandom",
        "landlock_add_rule",
        "landlock_create_ruleset",
        "landlock_restrict_self",
        "name_to_handle_at",
        "sysinfo",
    ],
];

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// Flags of `clone` that make namespaces (clone(2)).
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Family of sockets to the hypervisor, which ignore network namespaces (vsock(7)).
const AF_VSOCK: u64 = 40;
/// Personalities that change only how the program sees the machine (personality(2)): Linux, with 32 bits, both with the
/// old release number, and the query for the current one.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Returns the profile for these capabilities: the kernel checks them itself, so the calls they guard are allowed.
pub(crate) fn profile(capabilities: &Capabilities) -> Result<LinuxSeccomp, OciSpecError> {
    let names = ALLOWED.iter().flat_map(|names| names.iter().copied()).chain(guarded::calls(capabilities));
    let mut syscalls = vec![
        allow(names, Vec::new())?,
        allow(["socket"], vec![argument(AF_VSOCK, LinuxSeccompOperator::ScmpCmpNe, 0)?])?,
    ];
    if !capabilities.contains(&Capability::SysAdmin) {
        syscalls.push(allow(["clone"], vec![argument(NEW_NAMESPACES, LinuxSeccompOperator::ScmpCmpMaskedEq, 0)?])?);
        let clone3 = LinuxSyscallBuilder::default()
            .names(vec!["clone3".to_owned()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(ENOSYS);
        syscalls.push(clone3.build()?);
    }
    for personality in PERSONALITIES {
        syscalls.push(allow(["personality"], vec![argument(personality, LinuxSeccompOperator::ScmpCmpEq, 0)?])?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures())
        .syscalls(syscalls)
        .build()
}

fn allow<'a>(
    names: impl IntoIterator<Item = &'a str>,
    conditions: Vec<LinuxSeccompArg>,
) -> Result<LinuxSyscall, OciSpecError> {
    let rule = LinuxSyscallBuilder::default()
        .names(names.into_iter().map(str::to_owned).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow);
    match conditions.is_empty() {
        true => rule.build(),
        false => rule.args(conditions).build(),
    }
}

/// Makes a condition on a call's first argument.
fn argument(value: u64, operator: LinuxSeccompOperator, other: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default().index(0_usize).value(value).value_two(other).op(operator).build()
}

fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchNative],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{ALLOWED, Capabilities, Capability, profile};

    #[test]
    fn what_reaches_the_node_is_not_allowed() {
        let allowed: Vec<_> = ALLOWED.iter().flat_map(|names| names.iter().copied()).collect();
        let set: HashSet<_> = allowed.iter().copied().collect();
        assert_eq!(set.len(), allowed.len(), "a call is named twice");
        for denied in [
            "acct",
            "add_key",
            "bpf",
            "clock_settime",
            "clone",
            "clone3",
            "delete_module",
            "finit_module",
            "fsopen",
            "init_module",
            "io_uring_setup",
            "ioperm",
            "iopl",
            "kexec_load",
            "keyctl",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_by_handle_at",
            "perf_event_open",
            "personality",
            "pivot_root",
            "quotactl",
            "reboot",
            "request_key",
            "setns",
            "settimeofday",
            "socket",
            "swapon",
            "syslog",
            "umount2",
            "unshare",
            "userfaultfd",
        ] {
            assert!(!set.contains(denied), "{denied} is allowed whatever its arguments");
        }
        let profile = serde_json::to_value(profile(&Capabilities::new()).expect("a profile")).expect("JSON");
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(profile["defaultErrnoRet"], 1);
    }

    #[test]
    fn what_a_capability_guards_is_allowed_with_it() {
        let allowed = |capabilities: &[Capability]| {
            let profile = profile(&capabilities.iter().copied().collect()).expect("a profile");
            let rules = profile.syscalls().clone().unwrap_or_default();
            rules
                .into_iter()
                .filter(|rule| rule.args().is_none())
                .flat_map(|rule| rule.names().clone())
                .collect::<HashSet<_>>()
        };
        let (none, admin) = (allowed(&[]), allowed(&[Capability::SysAdmin]));
        for call in ["mount", "unshare", "setns", "clone", "bpf"] {
            assert!(!none.contains(call) && admin.contains(call), "{call}");
        }
        assert!(!none.contains("chroot") && allowed(&[Capability::SysChroot]).contains("chroot"));
        assert!(allowed(&[Capability::SysTime]).contains("clock_settime") && !admin.contains("clock_settime"));
    }
}
