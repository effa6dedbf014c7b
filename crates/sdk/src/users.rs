//! The user of a container: the manifest's, else the image's.

use stanchion_runtime::Security;

/// Cause of an unknown user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A user name without a line in `/etc/passwd`.
    #[error("the image's user {0:?} is not in its /etc/passwd")]
    NoUser(String),
    /// A group name without a line in `/etc/group`.
    #[error("the image's group {0:?} is not in its /etc/group")]
    NoGroup(String),
}

/// IDs of user, group and supplemental groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// UID.
    pub user: u32,
    /// GID.
    pub group: u32,
    /// GIDs in order, `group` among them.
    pub groups: Vec<u32>,
}

/// User and group tables of the image.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Content of `/etc/passwd`.
    pub passwd: String,
    /// Content of `/etc/group`.
    pub group: String,
}

/// Returns the manifest's user and group, or else those of `of_image`, the image's `USER`; and the supplemental groups
/// of image and manifest (R-SEC-1, R-SEC-2, R-SEC-10).
///
/// # Errors
/// The image names a user or a group that it does not have.
pub fn in_force(of_image: &str, security: &Security, tables: &Tables) -> Result<Ids, UserError> {
    let wanted = security.user.map(|user| user.to_string());
    let mut found = ids(wanted.as_deref().unwrap_or(of_image), tables)?;
    found.group = security.group.unwrap_or(found.group);
    if security.strict_groups {
        found.groups.clear();
    }
    found.groups.extend(security.groups.iter().copied());
    // The primary group is a supplemental group too; otherwise a program could drop it and evade permissions that deny
    // it.
    found.groups.push(found.group);
    found.groups.sort_unstable();
    found.groups.dedup();
    Ok(found)
}

/// Resolves `user` or `user:group`, by name or number.
fn ids(user: &str, tables: &Tables) -> Result<Ids, UserError> {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let users = || rows(&tables.passwd);
    let known = users().find(|row| {
        row.first().is_some_and(|name| *name == user) || number(row, 2).is_some_and(|id| id.to_string() == user)
    });
    let known = known.as_deref();
    let id = match (user.parse::<u32>(), known) {
        _ if user.is_empty() => 0,
        (Ok(id), _) => id,
        (_, Some(row)) => number(row, 2).ok_or_else(|| UserError::NoUser(user.to_owned()))?,
        _ => return Err(UserError::NoUser(user.to_owned())),
    };
    let group = match group {
        None | Some("") => known.and_then(|row| number(row, 3)).unwrap_or(0),
        Some(group) => match group.parse() {
            Ok(id) => id,
            Err(_) => rows(&tables.group)
                .find(|row| row.first().is_some_and(|name| *name == group))
                .and_then(|row| number(&row, 2))
                .ok_or_else(|| UserError::NoGroup(group.to_owned()))?,
        },
    };
    let name = known.and_then(|row| row.first()).copied().unwrap_or_default();
    let is_member = |row: &Vec<&str>| row.get(3).is_some_and(|members| members.split(',').any(|member| member == name));
    let further = rows(&tables.group).filter(|_| !name.is_empty()).filter(is_member);
    let further = further.filter_map(|row| number(&row, 2)).filter(|id| *id != group);
    Ok(Ids { user: id, group, groups: further.collect() })
}

/// Splits the lines of a table into fields; `/etc/passwd` has seven (passwd(5)).
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.splitn(8, ':').collect())
}

fn number(row: &[&str], index: usize) -> Option<u32> {
    row.get(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_or_names_of_the_image() {
        let none = Tables::default();
        let tables = Tables {
            passwd: "root:x:0:0::/:/bin/sh\napp:x:7:8::/:/bin/sh\nbroken\n".to_owned(),
            group: "app:x:8:\nextra:x:9:app,other\n".to_owned(),
        };
        let some = |user, group, groups: &[u32]| Ids { user, group, groups: groups.to_vec() };
        assert_eq!(ids("", &none).expect("root"), some(0, 0, &[]));
        assert_eq!(ids("5:6", &none).expect("numbers"), some(5, 6, &[]));
        assert_eq!(ids("app", &tables).expect("a name"), some(7, 8, &[9]));
        assert_eq!(ids("app:extra", &tables).expect("names"), some(7, 9, &[]));
        let unknown = ids("nobody", &tables).expect_err("unknown").to_string();
        assert_eq!(unknown, "the image's user \"nobody\" is not in its /etc/passwd");
        let unknown = ids("app:none", &tables).expect_err("unknown").to_string();
        assert_eq!(unknown, "the image's group \"none\" is not in its /etc/group");
    }

    /// Compares with the recording `security/users-and-groups`.
    #[test]
    fn the_manifest_goes_before_the_image() {
        let tables = Tables {
            passwd: "root:x:0:0::/:/bin/sh\nu:x:1000:1000::/:/bin/sh\n".to_owned(),
            group: "u:x:1000:\nextra:x:2000:u\n".to_owned(),
        };
        let found = |of_image, user, group| {
            let security = Security { user, group, groups: vec![5000, 5001], ..Security::default() };
            in_force(of_image, &security, &tables).expect("a user")
        };
        let with = |user, group, groups: &[u32]| Ids { user, group, groups: groups.to_vec() };
        assert_eq!(found("", Some(1000), None), with(1000, 1000, &[1000, 2000, 5000, 5001]), "R-SEC-1, R-SEC-10");
        assert_eq!(found("", Some(2000), Some(2001)), with(2000, 2001, &[2001, 5000, 5001]), "R-SEC-1");
        assert_eq!(found("u", None, None), with(1000, 1000, &[1000, 2000, 5000, 5001]), "R-SEC-1");
        let strict = Security { groups: vec![5000], strict_groups: true, ..Security::default() };
        assert_eq!(in_force("u", &strict, &tables).expect("a user"), with(1000, 1000, &[1000, 5000]), "R-SEC-10");
        assert_eq!(found("", None, Some(7)), with(0, 7, &[7, 5000, 5001]), "R-SEC-2");
    }
}
