//! An XML document as plain elements.

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use super::Unreadable;

/// libvirt itself refuses chains of more than 200 layers; nothing else nests.
const MAX_DEPTH: usize = 512;

/// One element with what is in it.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
    attributes: Vec<(String, String)>,
}

impl Element {
    /// The root element of a document.
    pub(super) fn parse(document: &str) -> Result<Self, Unreadable> {
        let mut reader = Reader::from_str(document);
        // The innermost element that is not closed yet stands last.
        let mut open: Vec<Self> = Vec::new();
        loop {
            let closed = match reader.read_event()? {
                Event::Start(tag) if open.len() < MAX_DEPTH => {
                    open.push(Self::from_tag(&tag)?);
                    None
                }
                Event::Start(_) => return Err(Unreadable::new("nested too deeply")),
                Event::Empty(tag) => Some(Self::from_tag(&tag)?),
                Event::End(_) => open.pop(),
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
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Neither attributes nor elements, as `<backingStore/>` at the end of a chain.
    pub(super) fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.children.is_empty()
    }

    fn from_tag(tag: &BytesStart<'_>) -> Result<Self, Unreadable> {
        let attributes = tag
            .attributes()
            .map(|attribute| {
                let attribute = attribute.map_err(quick_xml::Error::from)?;
                let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
                Ok((attribute.key.as_ref().to_owned(), value.into_owned()))
            })
            .collect::<Result<_, Unreadable>>()?;
        Ok(Self {
            name: tag.name().as_ref().to_owned(),
            attributes,
            ..Self::default()
        })
    }
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
