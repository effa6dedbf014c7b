//! UID and GID ranges of pods with `hostUsers: false`: each such pod has 65,536 users and groups of the node that no
//! other has (R-SEC-14). A file in the pod's directory, in a kubelet's format, holds the range as long as the pod
//! exists.

use std::{
    io::{self, ErrorKind},
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use nix::unistd::User;
use serde::{Deserialize, Serialize};
use stanchion_pod::{Pod, PodUid};
use stanchion_runtime::IdRange;
use stanchion_untrusted::{Links, read};

use crate::{files, limits};

/// Number of users and groups of each pod. Programs in containers expect as many.
const LENGTH: u32 = 1 << 16;
/// User of the node whose subordinate IDs pods get, if there is such a user.
const OWNER: &str = "kubelet";

/// Failure to give a pod a range.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RangeError {
    #[error("cannot tell which users of the node are those of user {OWNER}")]
    Ask(#[source] io::Error),
    #[error("user {OWNER} has other users of the node than groups: {users:?} and {groups:?}; {REMEDY}")]
    Unlike { users: String, groups: String },
    #[error("the users of the node that user {OWNER} has are not usable: {found:?}; {REMEDY}")]
    Unusable { found: String },
    #[error("all {0} UID/GID ranges are in use by other pods; allow more pods (agent.max_pods), or remove one")]
    NoneLeft(u32),
    #[error("cannot read which users of the node a pod has, from {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot note which users of the node the pod has")]
    Write(#[source] io::Error),
    #[error("{place}: {id} is beyond the {LENGTH} users and groups that a pod with `spec.hostUsers: false` has")]
    Beyond { place: String, id: u32 },
}

const REMEDY: &str = "give it one range of both, in /etc/subuid and /etc/subgid, which begins at a multiple of 65536 and is as \
                       long as agent.max_pods times that, or remove the user";

/// Allocator of ranges.
#[derive(Debug)]
pub(crate) struct IdRanges {
    state_dir: PathBuf,
    max_pods: u64,
    /// Lock for giving a range: two pods must not find the same one free.
    giving: Mutex<()>,
}

/// Content of a pod's file: one range of users, and the same of groups.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeFile {
    #[serde(rename = "uidMappings")]
    users: Vec<Mapping>,
    #[serde(rename = "gidMappings")]
    groups: Vec<Mapping>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl IdRanges {
    pub fn new(state_dir: &Path, max_pods: u64) -> Self {
        Self { state_dir: state_dir.to_owned(), max_pods, giving: Mutex::default() }
    }

    /// Returns the range of a pod, and gives it one if it has none. A range is free again once the pod's directory is
    /// gone.
    pub fn of(&self, uid: &PodUid) -> Result<IdRange, RangeError> {
        let _lock = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(range) = self.recorded(uid)? {
            return Ok(range);
        }
        let pool = self.pool()?;
        let mut taken = Vec::new();
        for other in files::uids(&self.state_dir).map_err(|source| self.unreadable(uid, source))? {
            taken.extend(self.recorded(&other)?);
        }
        let is_free = |first: &u32| {
            let meets = |range: &IdRange| {
                range.first < first.saturating_add(LENGTH) && *first < range.first.saturating_add(range.length)
            };
            !taken.iter().any(meets)
        };
        let ranges = pool.len() / LENGTH as usize;
        let first = pool.step_by(LENGTH as usize).find(is_free);
        let first = first.ok_or(RangeError::NoneLeft(u32::try_from(ranges).unwrap_or(u32::MAX)))?;
        let mapping = [Mapping { host_id: first, container_id: 0, length: LENGTH }];
        let file = RangeFile { users: mapping.to_vec(), groups: mapping.to_vec() };
        let text = serde_json::to_vec(&file).map_err(|error| RangeError::Write(error.into()))?;
        files::keep_users(&self.state_dir, uid, &text).map_err(RangeError::Write)?;
        Ok(IdRange { first, length: LENGTH })
    }

    /// Checks that a pod uses no UID and no GID outside its range.
    pub fn check(pod: &Pod) -> Result<(), RangeError> {
        let group = pod.fs_group.iter().map(|group| group.id).chain(pod.security.groups.iter().copied());
        let of_pod = group.map(|id| ("a group of the pod".to_owned(), id));
        let of_containers = pod.all_containers().flat_map(|it| {
            let user = it.security.user.map(|id| (format!("runAsUser of container {}", it.name), id));
            user.into_iter().chain(it.security.group.map(|id| (format!("runAsGroup of container {}", it.name), id)))
        });
        match of_pod.chain(of_containers).find(|(_, id)| *id >= LENGTH) {
            Some((place, id)) => Err(RangeError::Beyond { place, id }),
            None => Ok(()),
        }
    }

    fn recorded(&self, uid: &PodUid) -> Result<Option<IdRange>, RangeError> {
        let failed = |source| self.unreadable(uid, source);
        let text = match read(files::users(&self.state_dir, uid), Links::Refuse, limits::OWN_FILE) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(failed)?,
        };
        let file: RangeFile = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        match file.users[..] {
            [Mapping { host_id: first, container_id: 0, length }] => Ok(Some(IdRange { first, length })),
            _ => Err(failed(io::Error::new(ErrorKind::InvalidData, "it is not one range that begins with 0"))),
        }
    }

    fn unreadable(&self, uid: &PodUid, source: io::Error) -> RangeError {
        RangeError::Read { path: files::users(&self.state_dir, uid), source }
    }

    /// Returns all IDs of the node that pods may have.
    fn pool(&self) -> Result<Range<u32>, RangeError> {
        let known = User::from_name(OWNER).map_err(|error| RangeError::Ask(error.into()))?;
        let asked = known.map(|_| Ok::<_, io::Error>((getsubids(&[OWNER])?, getsubids(&["-g", OWNER])?)));
        match asked.transpose() {
            Ok(Some((users, groups))) => self.parse_ranges(users, groups),
            Ok(None) => Ok(self.usual()),
            // Without the program `getsubids`, pods get the default IDs, as with a kubelet.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(self.usual()),
            Err(error) => Err(RangeError::Ask(error)),
        }
    }

    /// Returns the default IDs: those of `max_pods` ranges after the first, which the node's own users have.
    fn usual(&self) -> Range<u32> {
        let length = u32::try_from(self.max_pods).unwrap_or(u32::MAX).saturating_mul(LENGTH);
        LENGTH..LENGTH.saturating_add(length)
    }

    /// Parses the output of `getsubids`: `0: kubelet 65536 7208960`.
    fn parse_ranges(&self, users: String, groups: String) -> Result<Range<u32>, RangeError> {
        if users != groups {
            return Err(RangeError::Unlike { users, groups });
        }
        let words: Vec<_> = users.split_whitespace().collect();
        let numbers = match words[..] {
            [_, _, first, length] => first.parse::<u32>().ok().zip(length.parse::<u32>().ok()),
            _ => None,
        };
        let is_usable = |(first, length): &(u32, u32)| {
            first.is_multiple_of(LENGTH)
                && length.is_multiple_of(LENGTH)
                && *first >= LENGTH
                && u64::from(*length) >= self.max_pods.saturating_mul(LENGTH.into())
        };
        match numbers.filter(is_usable) {
            Some((first, length)) => Ok(first..first.saturating_add(length)),
            None => Err(RangeError::Unusable { found: users }),
        }
    }
}

fn getsubids(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("getsubids").args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("getsubids {} has failed with {}: {said}", arguments.join(" "), output.status)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of(ranges: &IdRanges, uid: &str) -> Result<u32, RangeError> {
        ranges.of(&PodUid::new(uid)).map(|range| range.first)
    }

    // R-SEC-14.
    #[test]
    fn each_pod_has_a_range_of_its_own_and_keeps_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let ranges = IdRanges::new(dir.path(), 2);
        assert_eq!(of(&ranges, "a").expect("there is one"), LENGTH);
        assert_eq!(of(&ranges, "b").expect("there is one"), 2 * LENGTH);
        assert_eq!(of(&IdRanges::new(dir.path(), 2), "a").expect("it is recorded"), LENGTH, "the next agent knows");
        assert!(of(&ranges, "c").expect_err("all are taken").to_string().contains("all 2 UID/GID ranges"));
        fs::remove_dir_all(dir.path().join("pods/a")).expect("the pod is gone");
        assert_eq!(of(&ranges, "c").expect("it is free again"), LENGTH);
        let text = fs::read_to_string(dir.path().join("pods/c/userns")).expect("as a kubelet writes it");
        let mapping = r#"[{"hostId":65536,"containerId":0,"length":65536}]"#;
        assert_eq!(text, format!(r#"{{"uidMappings":{mapping},"gidMappings":{mapping}}}"#));
    }

    #[test]
    fn nothing_is_given_while_it_is_unknown_what_others_have() {
        let dir = tempfile::tempdir().expect("a directory");
        let ranges = IdRanges::new(dir.path(), 2);
        of(&ranges, "a").expect("there is one");
        let path = dir.path().join("pods/a/userns");
        fs::write(&path, "{}").expect("written");
        let error = of(&ranges, "b").expect_err("it may be the same");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }

    // R-SEC-14.
    #[test]
    fn a_user_of_the_node_may_own_the_ranges() {
        let ranges = IdRanges::new(Path::new("/none"), 110);
        let parse_ranges = |found: &str| ranges.parse_ranges(found.to_owned(), found.to_owned());
        assert_eq!(parse_ranges("0: kubelet 655360 7208960").expect("it will do"), 655_360..7_864_320);
        for wrong in [
            "",
            "0: kubelet 1 7208960",
            "0: kubelet 0 7208960",
            "0: kubelet 65536 65536",
            "0: kubelet 65536 7208960\n1: kubelet 65536000 65536",
        ] {
            let error = parse_ranges(wrong).expect_err(wrong).to_string();
            assert!(error.contains("/etc/subuid"), "{error}");
        }
        let error = ranges.parse_ranges("0: kubelet 65536 7208960".to_owned(), String::new()).expect_err("no groups");
        assert!(error.to_string().contains("than groups"), "{error}");
    }
}
