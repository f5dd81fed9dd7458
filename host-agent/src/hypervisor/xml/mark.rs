//! The mark of a block job in a running machine's definition: which merge it is for.
//!
//! ```text
//!   <metadata>
//!     <livemerge:job xmlns:livemerge="urn:livemerge:job:vda" merge="0192…"/>
//!   </metadata>
//! ```
//!
//! It is written into the live definition alone, so it ends with the QEMU that was asked for the job:
//! libvirt's numbers of running machines do not tell one QEMU from the next, they start again with
//! libvirt.

use livemerge_proto::ids::{DiskTarget, MergeId};

use super::tree::Element;

/// One disk's mark. libvirt keeps one element a namespace, so each disk has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hypervisor) struct JobMark {
    pub(super) disk: DiskTarget,
    pub(super) merge: MergeId,
}

impl JobMark {
    pub(in crate::hypervisor) const PREFIX: &'static str = "livemerge";
    const URN: &'static str = "urn:livemerge:job:";

    pub(in crate::hypervisor) fn new(disk: &DiskTarget, merge: MergeId) -> Self {
        let disk = disk.clone();
        Self { disk, merge }
    }

    /// What the element is known by.
    pub(in crate::hypervisor) fn namespace(&self) -> String {
        format!("{}{}", Self::URN, self.disk)
    }

    /// The element, as libvirt is given it: without its namespace.
    pub(in crate::hypervisor) fn element(&self) -> String {
        format!("<job merge='{}'/>", self.merge)
    }

    /// The marks in a `<domain>`.
    pub(super) fn all(domain: &Element) -> Vec<Self> {
        let metadata = domain.child("metadata");
        let elements = metadata.map_or(&[][..], |metadata| &metadata.children);
        elements.iter().filter_map(Self::parse).collect()
    }

    fn parse(element: &Element) -> Option<Self> {
        let (prefix, name) = element.name.split_once(':')?;
        let namespace = element.attribute(&format!("xmlns:{prefix}"))?;
        let disk = namespace.strip_prefix(Self::URN)?.parse().ok()?;
        let merge = element.attribute("merge")?.parse().ok()?;
        (name == "job").then_some(Self { disk, merge })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Definition;
    use super::*;

    #[test]
    fn each_disk_of_a_running_machine_has_its_own() {
        let [vda, vdb, vdc] = ["vda", "vdb", "vdc"].map(|disk| disk.parse().unwrap());
        let merges = [1, 2].map(|number| MergeId::from(uuid::Uuid::from_u128(number)));
        let mark = |prefix: &str, disk: &DiskTarget, merge| {
            let mark = JobMark::new(disk, merge);
            let begin = format!("{prefix}:job xmlns:{prefix}='{}'", mark.namespace());
            mark.element().replace("job", &begin)
        };
        let (one, two) = (
            mark("livemerge", &vda, merges[0]),
            mark("x", &vdb, merges[1]),
        );
        let foreign =
            "<o:job xmlns:o='urn:other:vdc' merge='00000000-0000-0000-0000-000000000001'/>";
        let domain = |number: &str| {
            let text = format!(
                "<domain{number}><name>n</name><uuid>11111111-2222-3333-4444-555555555555</uuid>\
                 <metadata>{foreign}{one}{two}</metadata></domain>"
            );
            Definition::parse(&text).unwrap()
        };
        let live = domain(" id='1'");
        assert_eq!(live.works_for(&vda), Some(merges[0]));
        assert_eq!(live.works_for(&vdb), Some(merges[1]));
        assert_eq!(live.works_for(&vdc), None);
        assert_eq!(domain("").works_for(&vda), None, "it is a copy");
    }
}
