//! How much memory this process may use: the least of what the machine has, what the control groups
//! of the process may have, and what `ulimit` allows. A runner that offered more would be sent tasks
//! of which the system kills it, and a master that queued more would be killed itself.
//!
//! A process is in one group of each hierarchy, and the limits of all groups above it hold, too.
//! Where a hierarchy is mounted, and which part of it, is told by the system: inside a container it
//! is another part than outside.

use rustix::process::{Resource, getrlimit};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the groups are mounted on nearly every system. In a container, this folder itself may be
/// the group of the process.
const USUAL_MOUNT: &str = "sys/fs/cgroup";

/// The files that hold the limit of a group, of the second version and of the first.
/// `memory.high` is the limit at which the system begins to slow a group down until it hardly runs.
const LIMIT_FILES: [&str; 4] = [
    "memory.max",
    "memory.high",
    "memory.limit_in_bytes",
    "memory/memory.limit_in_bytes",
];

/// The memory that this process may use, bytes; 0 where that is unknown.
pub fn memory_bytes() -> u64 {
    let of_process = [Resource::As, Resource::Data].map(|what| getrlimit(what).current);
    let limits = of_process.into_iter().flatten();
    limits.chain(of_system(Path::new("/"))).min().unwrap_or(0)
}

/// The least that the machine and the groups of this process have, by the files below `root`.
fn of_system(root: &Path) -> Option<u64> {
    let machine = read(&root.join("proc/meminfo")).and_then(|text| machine_bytes(&text));
    let own = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = read(&root.join("proc/self/mountinfo")).unwrap_or_default();
    let groups = mounts
        .lines()
        .filter_map(GroupMount::parse)
        .flat_map(|mount| mount.groups_of(&own, root));
    groups
        .chain([root.join(USUAL_MOUNT)])
        .flat_map(|group| LIMIT_FILES.map(|file| group.join(file)))
        .filter_map(|file| read(&file)?.trim().parse().ok())
        .chain(machine)
        .min()
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1_024)
}

/// A mounted hierarchy of groups that counts memory.
struct GroupMount<'a> {
    /// The group that is seen at `at`.
    top: &'a str,
    /// Where the hierarchy is mounted.
    at: &'a str,
    version: GroupVersion,
}

#[derive(PartialEq, Eq)]
enum GroupVersion {
    One,
    Two,
}

impl<'a> GroupMount<'a> {
    /// Reads a line of `mountinfo`: `30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw`.
    fn parse(line: &'a str) -> Option<GroupMount<'a>> {
        let (mount, about) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let top = mount.next()?;
        let at = mount.next()?;
        let mut about = about.split(' ');
        let version = match about.next()? {
            "cgroup2" => GroupVersion::Two,
            "cgroup" if about.nth(1)?.split(',').any(|word| word == "memory") => GroupVersion::One,
            _ => return None,
        };
        Some(GroupMount { top, at, version })
    }

    /// The folders of the group of this process and of all groups above it that can be seen. `own`
    /// has a line for each hierarchy: `0::/user.slice/a.service`, `4:memory:/docker/1f2e`.
    fn groups_of(&self, own: &str, root: &Path) -> Vec<PathBuf> {
        let path = own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_this = match self.version {
                GroupVersion::Two => controllers.is_empty(),
                GroupVersion::One => controllers.split(',').any(|name| name == "memory"),
            };
            is_this.then_some(path)
        });
        let at = root.join(self.at.trim_start_matches('/'));
        // A path that is not below the top is that of another view of the groups. What is mounted
        // is then the best that is known.
        let below = path
            .and_then(|path| Path::new(path).strip_prefix(self.top).ok())
            .unwrap_or(Path::new(""));
        below.ancestors().map(|group| at.join(group)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The memory of a machine with these files and 8 GiB.
    fn with(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        let meminfo = (
            "proc/meminfo",
            "MemTotal:        8388608 kB\nMemFree: 1 kB\n",
        );
        for (file, text) in files.iter().chain([&meminfo]) {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        of_system(root.path()).unwrap() / MIB
    }

    const TWO: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn without_groups_the_machine_counts() {
        assert_eq!(with(&[]), 8_192);
    }

    #[test]
    fn a_service_has_the_least_of_its_group_and_those_above() {
        let service = "sys/fs/cgroup/system.slice/tm.service/memory.max";
        let slice = "sys/fs/cgroup/system.slice/memory.max";
        let own = ("proc/self/cgroup", "0::/system.slice/tm.service\n");
        let mounts = ("proc/self/mountinfo", TWO);
        assert_eq!(
            with(&[own, mounts, (service, "536870912\n"), (slice, "max\n")]),
            512
        );
        assert_eq!(
            with(&[own, mounts, (service, "max\n"), (slice, "1073741824\n")]),
            1_024
        );
        let high = "sys/fs/cgroup/system.slice/tm.service/memory.high";
        assert_eq!(
            with(&[own, mounts, (service, "536870912"), (high, "268435456")]),
            256
        );
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_top() {
        let own = ("proc/self/cgroup", "0::/\n");
        let mounts = ("proc/self/mountinfo", TWO);
        assert_eq!(
            with(&[own, mounts, ("sys/fs/cgroup/memory.max", "134217728")]),
            128
        );
        let outside = ("proc/self/cgroup", "0::/../other\n");
        assert_eq!(
            with(&[outside, mounts, ("sys/fs/cgroup/memory.max", "134217728")]),
            128
        );
        let alone = [("sys/fs/cgroup/memory.max", "134217728")];
        assert_eq!(with(&alone), 128, "the files without a mount");
    }

    #[test]
    fn the_first_version_is_read_where_memory_is_counted_and_wherever_it_is_mounted() {
        let mounts = "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 23 0:28 /docker/1f /groups/mem rw - cgroup cgroup rw,memory\n";
        let mounts = ("proc/self/mountinfo", mounts);
        let own = (
            "proc/self/cgroup",
            "5:cpu,cpuacct:/x\n4:memory:/docker/1f/inner\n0::/\n",
        );
        let unlimited = "9223372036854771712\n";
        let top = "groups/mem/memory.limit_in_bytes";
        let inner = "groups/mem/inner/memory.limit_in_bytes";
        assert_eq!(
            with(&[own, mounts, (top, "268435456"), (inner, unlimited)]),
            256
        );
        assert_eq!(
            with(&[own, mounts, (top, unlimited), (inner, "134217728")]),
            128
        );
        assert_eq!(
            with(&[own, mounts, (top, unlimited), (inner, unlimited)]),
            8_192
        );
        let usual = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(with(&[(usual, "67108864")]), 64);
    }
}
