//! The user that an image says.

use std::{fs, path::Path};

/// Why a user cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("the image's user {0:?} is not in its /etc/passwd")]
    NoUser(String),
    #[error("the image's group {0:?} is not in its /etc/group")]
    NoGroup(String),
}

/// Numbers of user, group and further groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    pub user: u32,
    pub group: u32,
    pub groups: Vec<u32>,
}

/// Whether names have to be looked up in the image's files.
pub(crate) fn has_names(user: &str) -> bool {
    user.split(':').any(|part| !part.is_empty() && part.parse::<u32>().is_err())
}

/// `user`, `user:group`, as names or numbers.
pub(crate) fn ids(user: &str, rootfs: Option<&Path>) -> Result<Ids, UserError> {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let table = |name: &str| {
        // Read through the image's own root: a link in it must not lead to the node's files.
        let path = rootfs.map(|rootfs| rootfs.join("etc").join(name));
        let is_plain = path.as_ref().is_some_and(|path| fs::symlink_metadata(path).is_ok_and(|it| it.is_file()));
        path.filter(|_| is_plain).and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
    };
    let passwd = if rootfs.is_some() { table("passwd") } else { String::new() };
    let groups = if rootfs.is_some() { table("group") } else { String::new() };
    let rows = |text: &str| {
        text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let number = |row: &[String], index: usize| row.get(index).and_then(|text| text.parse::<u32>().ok());
    let users = rows(&passwd);
    let known = users.iter().find(|row| {
        row.first().is_some_and(|name| name == user) || number(row, 2).is_some_and(|id| id.to_string() == user)
    });
    let id = match (user.parse::<u32>(), known) {
        _ if user.is_empty() => 0,
        (Ok(id), _) => id,
        (_, Some(row)) => number(row, 2).ok_or_else(|| UserError::NoUser(user.to_owned()))?,
        _ => return Err(UserError::NoUser(user.to_owned())),
    };
    let group_rows = rows(&groups);
    let group = match group {
        None | Some("") => known.and_then(|row| number(row, 3)).unwrap_or(0),
        Some(group) => match group.parse() {
            Ok(id) => id,
            Err(_) => group_rows
                .iter()
                .find(|row| row.first().is_some_and(|name| name == group))
                .and_then(|row| number(row, 2))
                .ok_or_else(|| UserError::NoGroup(group.to_owned()))?,
        },
    };
    let name = known.and_then(|row| row.first()).cloned().unwrap_or_default();
    let is_member =
        |row: &&Vec<String>| row.get(3).is_some_and(|members| members.split(',').any(|member| member == name));
    let further = group_rows.iter().filter(|_| !name.is_empty()).filter(is_member).filter_map(|row| number(row, 2));
    Ok(Ids { user: id, group, groups: further.filter(|id| *id != group).collect() })
}

#[cfg(test)]
mod tests {
    use super::{Ids, has_names, ids};

    #[test]
    fn users_are_numbers_or_names_of_the_image() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("etc")).expect("made");
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:7:8::/:/bin/sh\n")
            .expect("written");
        std::fs::write(root.path().join("etc/group"), "app:x:8:\nextra:x:9:app,other\n").expect("written");
        let some = |user, group, groups: &[u32]| Ids { user, group, groups: groups.to_vec() };
        assert_eq!(ids("", None).expect("root"), some(0, 0, &[]));
        assert_eq!(ids("5:6", None).expect("numbers"), some(5, 6, &[]));
        assert_eq!(ids("app", Some(root.path())).expect("a name"), some(7, 8, &[9]));
        assert_eq!(ids("app:extra", Some(root.path())).expect("names"), some(7, 9, &[]));
        assert!(ids("nobody", Some(root.path())).is_err());
        assert!(has_names("app:8") && !has_names("7:8") && !has_names(""));
    }
}
