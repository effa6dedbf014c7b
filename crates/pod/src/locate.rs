//! Where in a file a field stands. Only asked when there is something to say.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, Span};

use crate::{Problem, document::Place, names};

/// The places of a file's fields: line and column of each key or item, by document and path.
pub(crate) struct Located {
    places: HashMap<(usize, String), (u32, u32)>,
    repeated: Option<Problem>,
}

/// The first key that stands twice in one mapping.
pub(crate) fn repeated(text: &str) -> Option<Problem> {
    Located::new(text).repeated
}

/// What is being read: a mapping between keys and values, or a sequence.
enum Level {
    Mapping { path: String, key: Option<String> },
    Sequence { path: String, next: usize },
}

impl Located {
    pub fn new(text: &str) -> Self {
        let mut places = HashMap::new();
        let mut levels: Vec<Level> = Vec::new();
        let mut repeated = None;
        let mut document = 0;
        let mut started = false;
        for event in Parser::new_from_str(text) {
            // A file that cannot be parsed has told its place already.
            let Ok((event, span)) = event else { break };
            match event {
                Event::DocumentStart(_) => {
                    document += usize::from(started);
                    started = true;
                }
                Event::MappingStart(..) => {
                    let path = value(&mut levels, document, &span, &mut places);
                    levels.push(Level::Mapping { path, key: None });
                }
                Event::SequenceStart(..) => {
                    let path = value(&mut levels, document, &span, &mut places);
                    levels.push(Level::Sequence { path, next: 0 });
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    levels.pop();
                }
                Event::Scalar(text, ..) => match levels.last_mut() {
                    Some(Level::Mapping { path, key: key @ None }) => {
                        let field = names::join(path, &text);
                        let (line, column) = position(&span);
                        if let Some((first, _)) = places.insert((document, field.clone()), (line, column)) {
                            let message = format!("duplicate key: it is already on line {first}; remove one");
                            repeated.get_or_insert(Problem { line: Some(line), column: Some(column), field, message });
                        }
                        *key = Some(text.into_owned());
                    }
                    _ => drop(value(&mut levels, document, &span, &mut places)),
                },
                Event::Alias(_) => drop(value(&mut levels, document, &span, &mut places)),
                _ => {}
            }
        }
        Self { places, repeated }
    }

    /// The problems with line and column: of the field, or of the nearest thing around it that the file has.
    pub fn locate(&self, problems: Vec<(Place, Problem)>) -> Vec<Problem> {
        let located = |(place, problem): (Place, Problem)| {
            let mut path = names::join(&place.prefix, &problem.field);
            let found = loop {
                if let Some(found) = self.places.get(&(place.document, path.clone())) {
                    break Some(*found);
                }
                match path.rfind(['.', '[']) {
                    Some(cut) => path.truncate(cut),
                    None => break None,
                }
            };
            match (problem.line, found) {
                (None, Some((line, column))) => Problem { line: Some(line), column: Some(column), ..problem },
                _ => problem,
            }
        };
        problems.into_iter().map(located).collect()
    }
}

/// Notes where a value begins; its path.
fn value(
    levels: &mut [Level],
    document: usize,
    span: &Span,
    places: &mut HashMap<(usize, String), (u32, u32)>,
) -> String {
    match levels.last_mut() {
        None => String::new(),
        Some(Level::Mapping { path, key }) => names::join(path, &key.take().unwrap_or_default()),
        Some(Level::Sequence { path, next }) => {
            let path = format!("{path}[{next}]");
            *next += 1;
            places.insert((document, path.clone()), position(span));
            path
        }
    }
}

fn position(span: &Span) -> (u32, u32) {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    (number(span.start.line()), number(span.start.col() + 1))
}
