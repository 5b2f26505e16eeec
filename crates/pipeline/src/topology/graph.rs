//! The topology as a picture: text for terminals, Mermaid for documents, DOT for Graphviz.

use super::{Kind, OWN_SOURCES, Topology, described};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// How a picture is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line for each component.
    #[default]
    Text,
    /// <https://mermaid.js.org/syntax/flowchart.html>
    Mermaid,
    /// <https://graphviz.org/doc/info/lang.html>
    Dot,
}

struct Picture {
    /// Name, kind and type of each component that takes part.
    nodes: Vec<(Arc<str>, Kind, String)>,
    /// From, by which output, to.
    edges: Vec<(Arc<str>, Option<Arc<str>>, Arc<str>)>,
}

/// Draws a topology.
pub fn draw(topology: &Topology, format: Format) -> String {
    let picture = Picture::of(topology);
    match format {
        Format::Text => picture.text(),
        Format::Mermaid => picture.mermaid(),
        Format::Dot => picture.dot(),
    }
}

impl Picture {
    fn of(topology: &Topology) -> Self {
        let mut edges = Vec::new();
        for (listener, inputs) in topology.in_order() {
            for input in inputs {
                let output = input.name.split_once('.').map(|(_, output)| output.into());
                edges.push((input.component().into(), output, Arc::clone(listener)));
            }
        }
        let heard: BTreeSet<Arc<str>> = edges.iter().map(|(from, _, _)| Arc::clone(from)).collect();
        let own = OWN_SOURCES.into_iter().filter(|name| heard.contains(*name));
        let mut nodes: Vec<_> = own.map(|name| (name.into(), Kind::OwnSource, "own".to_owned())).collect();
        let sources = topology.sources.iter();
        nodes.extend(
            sources
                .map(|source| (source.name.clone(), Kind::Source, described::source_type(&source.config).to_owned())),
        );
        for (name, _) in topology.in_order() {
            let transform = topology.transforms.iter().find(|transform| transform.name == *name);
            let sink = topology.sinks.iter().find(|sink| sink.name == *name);
            let (kind, of) = match (transform, sink.and_then(|sink| sink.config.as_ref())) {
                (Some(transform), _) => (Kind::Transform, transform.config.type_name()),
                (None, Some(config)) => (Kind::Sink, described::sink_type(config)),
                (None, None) => (Kind::Sink, "own"),
            };
            nodes.push((Arc::clone(name), kind, of.to_owned()));
        }
        Self { nodes, edges }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, kind, of) in &self.nodes {
            let to: Vec<String> = self
                .edges
                .iter()
                .filter(|(from, _, _)| from == name)
                .map(|(_, output, to)| {
                    output.as_ref().map_or_else(|| to.to_string(), |output| format!("{to} (.{output})"))
                })
                .collect();
            let kind = match kind {
                Kind::Source | Kind::OwnSource => "source",
                Kind::Transform => "transform",
                Kind::Sink => "sink",
            };
            let arrow = if to.is_empty() { String::new() } else { format!(" → {}", to.join(", ")) };
            let _ = writeln!(text, "{kind:<9} {name} ({of}){arrow}");
        }
        text
    }

    fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for (name, kind, of) in &self.nodes {
            let (open, close) = match kind {
                Kind::Source | Kind::OwnSource => ("([", "])"),
                Kind::Transform => ("[", "]"),
                Kind::Sink => ("[/", "/]"),
            };
            // A word of Mermaid's own, such as `end`, is no name of a node: all have a prefix.
            let _ = writeln!(text, "  n_{name}{open}\"{name}<br/>{of}\"{close}");
        }
        for (from, output, to) in &self.edges {
            let label = output.as_ref().map(|output| format!("|{output}|")).unwrap_or_default();
            let _ = writeln!(text, "  n_{from} -->{label} n_{to}");
        }
        text
    }

    fn dot(&self) -> String {
        let mut text = String::from("digraph pipeline {\n  rankdir=LR;\n");
        for (name, kind, of) in &self.nodes {
            let shape = match kind {
                Kind::Source | Kind::OwnSource => "ellipse",
                Kind::Transform => "box",
                Kind::Sink => "house",
            };
            let _ = writeln!(text, "  \"{name}\" [shape={shape}, label=\"{name}\\n{of}\"];");
        }
        for (from, output, to) in &self.edges {
            let label = output.as_ref().map(|output| format!(" [label=\"{output}\"]")).unwrap_or_default();
            let _ = writeln!(text, "  \"{from}\" -> \"{to}\"{label};");
        }
        text.push_str("}\n");
        text
    }
}
