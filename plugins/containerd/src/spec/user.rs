//! The user that an image says.

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

/// The image's own tables of users and groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// Content of `/etc/passwd`.
    pub passwd: String,
    /// Content of `/etc/group`.
    pub group: String,
}

/// Whether names have to be looked up in the image's files.
pub(crate) fn has_names(user: &str) -> bool {
    user.split(':').any(|part| !part.is_empty() && part.parse::<u32>().is_err())
}

/// `user`, `user:group`, as names or numbers.
pub(crate) fn ids(user: &str, tables: &Tables) -> Result<Ids, UserError> {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let rows = |text: &str| {
        text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let number = |row: &[String], index: usize| row.get(index).and_then(|text| text.parse::<u32>().ok());
    let users = rows(&tables.passwd);
    let known = users.iter().find(|row| {
        row.first().is_some_and(|name| name == user) || number(row, 2).is_some_and(|id| id.to_string() == user)
    });
    let id = match (user.parse::<u32>(), known) {
        _ if user.is_empty() => 0,
        (Ok(id), _) => id,
        (_, Some(row)) => number(row, 2).ok_or_else(|| UserError::NoUser(user.to_owned()))?,
        _ => return Err(UserError::NoUser(user.to_owned())),
    };
    let group_rows = rows(&tables.group);
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
    use super::{Ids, Tables, has_names, ids};

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
        assert!(has_names("app:8") && !has_names("7:8") && !has_names(""));
    }
}
