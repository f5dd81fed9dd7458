//! An XML document as plain elements.

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use std::ops::Range;

use super::Unreadable;

/// libvirt itself refuses chains of more than 200 layers; nothing else nests.
const MAX_DEPTH: usize = 512;

/// One element with what is in it.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
    /// Where it stands in the document, its end tag included.
    pub(super) span: Range<usize>,
    /// Where its start tag stands.
    pub(super) tag: Range<usize>,
    attributes: Vec<Attribute>,
}

/// One attribute of an element.
#[derive(Debug)]
pub(super) struct Attribute {
    key: String,
    value: String,
    /// Where the key stands in the document.
    pub(super) key_at: Range<usize>,
    /// Where the value stands, without its quotes.
    pub(super) value_at: Range<usize>,
}

impl Element {
    /// The root element of a document.
    pub(super) fn parse(document: &str) -> Result<Self, Unreadable> {
        let mut reader = Reader::from_str(document);
        // The innermost element that is not closed yet stands last.
        let mut open: Vec<Self> = Vec::new();
        let mut after = 0;
        loop {
            let before = after;
            let event = reader.read_event()?;
            after = usize::try_from(reader.buffer_position())
                .map_err(|_| Unreadable::new("too long"))?;
            let closed = match event {
                Event::Start(tag) if open.len() < MAX_DEPTH => {
                    open.push(Self::from_tag(&tag, document, before..after)?);
                    None
                }
                Event::Start(_) => return Err(Unreadable::new("nested too deeply")),
                Event::Empty(tag) => Some(Self::from_tag(&tag, document, before..after)?),
                Event::End(_) => open.pop().map(|element| element.ends_at(after)),
                Event::Text(text) => {
                    append(&mut open, &text.xml10_content());
                    None
                }
                Event::CData(text) => {
                    append(&mut open, &text.xml10_content());
                    None
                }
                Event::GeneralRef(entity) => {
                    append(&mut open, &resolve(&entity)?);
                    None
                }
                Event::Eof => return Err(Unreadable::new("ends too early")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => None,
            };
            match (closed, open.last_mut()) {
                (Some(child), Some(parent)) => parent.children.push(child),
                (Some(root), None) => return Ok(root),
                (None, _) => {}
            }
        }
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.place_of(name).map(|found| found.value.as_str())
    }

    pub(super) fn place_of(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|found| found.key == name)
    }

    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Neither attributes nor elements, as `<backingStore/>` at the end of a chain.
    pub(super) fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.children.is_empty()
    }

    fn ends_at(mut self, end: usize) -> Self {
        self.span.end = end;
        self
    }

    fn from_tag(
        tag: &BytesStart<'_>,
        document: &str,
        place: Range<usize>,
    ) -> Result<Self, Unreadable> {
        let attributes = tag
            .attributes()
            .map(|attribute| {
                let attribute = attribute.map_err(quick_xml::Error::from)?;
                let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
                let key: &str = attribute.key.as_ref();
                Ok(Attribute {
                    key: key.to_owned(),
                    value: value.into_owned(),
                    key_at: within(document, key)?,
                    value_at: within(document, &attribute.value)?,
                })
            })
            .collect::<Result<_, Unreadable>>()?;
        Ok(Self {
            name: tag.name().as_ref().to_owned(),
            span: place.clone(),
            tag: place,
            attributes,
            ..Self::default()
        })
    }
}

/// Where a part of the document stands in it.
fn within(document: &str, part: &str) -> Result<Range<usize>, Unreadable> {
    let start = (part.as_ptr() as usize).checked_sub(document.as_ptr() as usize);
    let range = start.and_then(|start| Some(start..start.checked_add(part.len())?));
    range
        .filter(|range| document.get(range.clone()) == Some(part))
        .ok_or_else(|| Unreadable::new("has an attribute that cannot be found again"))
}

fn append(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn resolve(entity: &BytesRef<'_>) -> Result<String, Unreadable> {
    if let Some(character) = entity.resolve_char_ref()? {
        return Ok(character.to_string());
    }
    resolve_xml_entity(entity)
        .map(str::to_owned)
        .ok_or_else(|| Unreadable::new(format!("has an unknown entity {:?}", &**entity)))
}
