//! Merge keys.

use super::problem;
use crate::{
    Problem,
    node::{Content, Entry, Node},
};

/// Inserts the entries of merge keys (`<<: *base`) where the keys stand. Later entries count, as in Kubernetes.
pub(super) fn merged(explicit: Vec<Entry>, merges: Vec<(usize, Node)>) -> Result<Vec<Entry>, Problem> {
    if merges.is_empty() {
        return Ok(explicit);
    }
    let mut entries = Vec::with_capacity(explicit.len());
    let mut merges = merges.into_iter().peekable();
    for (index, entry) in explicit.into_iter().enumerate() {
        while let Some((_, node)) = merges.next_if(|(at, _)| *at <= index) {
            add_merged(node, &mut entries)?;
        }
        entries.push(entry);
    }
    for (_, node) in merges {
        add_merged(node, &mut entries)?;
    }
    Ok(entries)
}

fn add_merged(node: Node, entries: &mut Vec<Entry>) -> Result<(), Problem> {
    let unmarked = |entry: Entry| Entry { repeats: None, ..entry };
    match node.content {
        Content::Map(entries_of_key) => entries.extend(entries_of_key.into_iter().map(unmarked)),
        // Of several mappings, the first has precedence.
        Content::List(items) => {
            for item in items.into_iter().rev() {
                match item.content {
                    Content::Map(entries_of_key) => entries.extend(entries_of_key.into_iter().map(unmarked)),
                    _ => return Err(problem(item.at, "a merge key (<<) takes mappings".to_owned())),
                }
            }
        }
        _ => return Err(problem(node.at, "a merge key (<<) takes a mapping or a list of mappings".to_owned())),
    }
    Ok(())
}
