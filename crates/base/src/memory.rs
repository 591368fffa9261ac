//! The memory of this process, closed to what runs beside it as the same user, as a training on this machine
//! does.
//!
//! Of a process that is not dumpable the kernel gives nobody `/proc/PID/environ`, `mem` or `fd`, lets nobody
//! trace it, and writes no core file, unless the reader has `CAP_SYS_PTRACE`. A limit for core files would
//! add nothing, and trainings would inherit it. What a process starts is dumpable again, so for a training
//! nothing changes.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Closes the memory of an agent, if the pipe finds the agent nevertheless.
///
/// Where `/proc` shows a user no processes but those that he may trace (`hidepid`), it hides a closed agent
/// from the pipe, which could neither watch nor end it. An agent's environment has no secrets there either;
/// what it is told in confidence has.
pub fn close_agent() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !hides_processes(&mounts) {
        close();
    }
}

fn hides_processes(mounts: &str) -> bool {
    let of_proc = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut of_proc = of_proc.filter(|fields| fields.get(1..3) == Some(&["/proc", "proc"]));
    // The last one mounted is the one that is seen.
    let options = of_proc.next_back().and_then(|fields| fields.get(3).copied()).unwrap_or_default();
    let hidden = options.split(',').find_map(|option| option.strip_prefix("hidepid="));
    hidden.is_some_and(|how| !["0", "off"].contains(&how))
}

/// Closes the memory of this process, and warns where the kernel refuses, as a sandbox may have it do. The
/// files below `/proc/self` stay open to the process itself.
pub fn close() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(
            "the memory of this process, where secrets are, is open to other processes of its user: {error}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn a_proc_that_hides_processes_is_known_by_its_mount() {
        let mounts = |options: &str| {
            format!("none / ext4 rw 0 0\nproc /proc proc rw,{options} 0 0\ntmpfs /tmp tmpfs rw 0 0\n")
        };
        for (options, hides) in [
            ("relatime", false),
            ("relatime,hidepid=invisible", true),
            ("hidepid=2,gid=4", true),
            ("hidepid=noaccess", true),
            ("hidepid=off", false),
            ("hidepid=0", false),
        ] {
            assert_eq!(hides_processes(&mounts(options)), hides, "{options}");
        }
        assert!(!hides_processes(&(mounts("hidepid=2") + "proc /proc proc rw 0 0\n")));
        assert!(!hides_processes(""));
    }

    #[test]
    fn the_memory_of_an_agent_is_closed_where_the_pipe_finds_the_agent_nevertheless() {
        let is_closed = || dumpable_behavior().unwrap() == DumpableBehavior::NotDumpable;
        close_agent();
        assert_eq!(is_closed(), !hides_processes(&std::fs::read_to_string("/proc/self/mounts").unwrap()));
        close();
        assert!(is_closed());
    }
}
