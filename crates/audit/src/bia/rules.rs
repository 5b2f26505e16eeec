//! Reading `bia.toml` and the rules it must keep, each named with the line that breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use toml::Spanned;

use super::duration::parse_duration_ms;
use super::{ASSETS_MAX, Asset, Bia, Class, Disruption, Impact, Impacts, Minimum, TEXT_SIZE_BYTES_MAX, Target};

/// Where an analysis is refused and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BiaError {
    /// The line, from 1.
    pub line: usize,
    /// The rule that is broken there.
    pub rule: Rule,
}

/// The rules of an analysis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// The file is too large.
    #[error("more than {TEXT_SIZE_BYTES_MAX} bytes")]
    Size,
    /// Not TOML, or a member is missing, unknown or of another type.
    #[error("{0}")]
    Syntax(Box<str>),
    /// A text is not a duration.
    #[error("{0}")]
    Duration(#[from] super::NotADuration),
    /// Each of the classes 0 to 3 stands there once.
    #[error("the classes 0, 1, 2 and 3 must each be described once")]
    Classes,
    /// A class has a target for each disruption.
    #[error("class {0} has no target for {1}")]
    TargetMissing(Class, Disruption),
    /// A less urgent class promises no more than a more urgent one.
    #[error("class {0} promises more for {1} than the class before it")]
    ClassOrder(Class, Disruption),
    /// Writes with remote durability are lost no more easily than others.
    #[error("rpo_remote for {0} is larger than rpo")]
    Remote(Disruption),
    /// More assets than are read.
    #[error("more than {ASSETS_MAX} assets")]
    AssetCount,
    /// A name of an asset is lower-case letters, digits, '-' and '_'.
    #[error("an asset's name is 1 to 64 lower-case letters, digits, '-' or '_'")]
    AssetName,
    /// Two assets have one name.
    #[error("asset '{0}' is described twice")]
    AssetTwice(Box<str>),
    /// An asset is back before its disruption can no longer be borne.
    #[error("asset '{0}': its RTO for {1} is longer than its MTPD")]
    Mtpd(Box<str>, Disruption),
    /// The minimum service is 1 to 100 percent.
    #[error("asset '{0}': mbco.percent is 1 to 100")]
    Minimum(Box<str>),
    /// An asset's own target is stricter than its class's.
    #[error("asset '{0}': its own target for {1} is weaker than that of its class")]
    WeakerTarget(Box<str>, Disruption),
    /// An asset whose loss is critical is of class 0 or 1.
    #[error("asset '{0}': availability is critical, so its class is 0 or 1")]
    CriticalClass(Box<str>),
    /// An asset it depends on is there.
    #[error("asset '{0}' depends on '{1}', which is not described")]
    DependencyUnknown(Box<str>, Box<str>),
    /// An asset it depends on is at least as urgent.
    #[error("asset '{0}' depends on '{1}', which is of a less urgent class")]
    DependencyClass(Box<str>, Box<str>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBia {
    #[serde(rename = "class")]
    classes: Spanned<Vec<RawClass>>,
    #[serde(rename = "asset", default)]
    assets: Vec<RawAsset>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClass {
    number: Spanned<Class>,
    name: String,
    targets: BTreeMap<Disruption, Spanned<RawTarget>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    rto: String,
    rpo: String,
    rpo_remote: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAsset {
    name: Spanned<String>,
    description: String,
    owner: String,
    class: Spanned<Class>,
    impacts: Impacts,
    mtpd: Spanned<String>,
    mbco: Spanned<Minimum>,
    #[serde(default)]
    depends_on: Vec<Spanned<String>>,
    #[serde(default)]
    targets: BTreeMap<Disruption, Spanned<RawTarget>>,
}

/// A rule and the byte offset at which it is broken.
type Broken = (usize, Rule);

pub(super) fn parse(text: &str) -> Result<Bia, BiaError> {
    if text.len() > TEXT_SIZE_BYTES_MAX {
        return Err(BiaError { line: 1, rule: Rule::Size });
    }
    let at = |(offset, rule): Broken| {
        let before = &text.as_bytes()[..offset.min(text.len())];
        BiaError { line: 1 + before.iter().filter(|byte| **byte == b'\n').count(), rule }
    };
    let raw: RawBia = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        at((offset, Rule::Syntax(error.message().into())))
    })?;
    check(raw).map_err(at)
}

fn check(raw: RawBia) -> Result<Bia, Broken> {
    let offset = raw.classes.span().start;
    let (class_names, targets) = classes(offset, raw.classes.into_inner())?;
    let mut bia = Bia { class_names, targets, assets: Vec::new() };
    if let Some(excess) = raw.assets.get(ASSETS_MAX) {
        return Err((excess.name.span().start, Rule::AssetCount));
    }
    let mut dependencies = Vec::new();
    let mut names = BTreeSet::new();
    for raw in raw.assets {
        let offset = raw.name.span().start;
        if !names.insert(raw.name.get_ref().clone()) {
            return Err((offset, Rule::AssetTwice(raw.name.into_inner().into())));
        }
        dependencies.push(raw.depends_on.clone());
        let asset = asset(&bia, raw)?;
        bia.assets.push(asset);
    }
    for (asset, dependencies) in bia.assets.iter().zip(dependencies) {
        for name in dependencies {
            let pair = || (asset.name.as_str().into(), name.get_ref().as_str().into());
            let Some(needed) = bia.asset(name.get_ref()) else {
                let (asset, needed) = pair();
                return Err((name.span().start, Rule::DependencyUnknown(asset, needed)));
            };
            if needed.class > asset.class {
                let (asset, needed) = pair();
                return Err((name.span().start, Rule::DependencyClass(asset, needed)));
            }
        }
    }
    Ok(bia)
}

type Classes = ([String; Class::COUNT], BTreeMap<(Class, Disruption), Target>);

fn classes(offset: usize, raw: Vec<RawClass>) -> Result<Classes, Broken> {
    let mut names: [String; Class::COUNT] = Default::default();
    let mut targets = BTreeMap::new();
    let mut spans = BTreeMap::new();
    for class in raw {
        let (at, number) = (class.number.span().start, class.number.into_inner());
        if spans.insert(number, at).is_some() {
            return Err((at, Rule::Classes));
        }
        names[usize::from(number.number())] = class.name;
        for (disruption, raw) in class.targets {
            targets.insert((number, disruption), target(disruption, raw)?);
        }
    }
    if spans.len() != Class::COUNT {
        return Err((offset, Rule::Classes));
    }
    for disruption in Disruption::ALL {
        let mut before: Option<Target> = None;
        for class in Class::ALL {
            let at = spans[&class];
            let target = targets.get(&(class, disruption)).ok_or((at, Rule::TargetMissing(class, disruption)))?;
            if before.is_some_and(|before| !is_as_strict(&before, target)) {
                return Err((at, Rule::ClassOrder(class, disruption)));
            }
            before = Some(*target);
        }
    }
    Ok((names, targets))
}

fn target(disruption: Disruption, raw: Spanned<RawTarget>) -> Result<Target, Broken> {
    let at = raw.span().start;
    let raw = raw.into_inner();
    let duration = |text: &str| parse_duration_ms(text).map_err(|error| (at, Rule::Duration(error)));
    let rpo_ms = duration(&raw.rpo)?;
    let rpo_remote_ms = raw.rpo_remote.as_deref().map_or(Ok(rpo_ms), duration)?;
    if rpo_remote_ms > rpo_ms {
        return Err((at, Rule::Remote(disruption)));
    }
    Ok(Target { rto_ms: duration(&raw.rto)?, rpo_ms, rpo_remote_ms })
}

fn asset(bia: &Bia, raw: RawAsset) -> Result<Asset, Broken> {
    let name = raw.name.get_ref().clone();
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(is_letter) {
        return Err((raw.name.span().start, Rule::AssetName));
    }
    let boxed = || Box::<str>::from(name.as_str());
    let (class_at, class) = (raw.class.span().start, raw.class.into_inner());
    if raw.impacts.availability == Impact::Critical && class.number() > 1 {
        return Err((class_at, Rule::CriticalClass(boxed())));
    }
    let (mbco_at, mbco) = (raw.mbco.span().start, raw.mbco.into_inner());
    if !(1..=100).contains(&mbco.percent) {
        return Err((mbco_at, Rule::Minimum(boxed())));
    }
    let mut targets = BTreeMap::new();
    for (disruption, raw) in raw.targets {
        let at = raw.span().start;
        let own = target(disruption, raw)?;
        if !is_as_strict(&own, &bia.target(class, disruption)) {
            return Err((at, Rule::WeakerTarget(boxed(), disruption)));
        }
        targets.insert(disruption, own);
    }
    let mtpd_at = raw.mtpd.span().start;
    let mtpd_ms = parse_duration_ms(raw.mtpd.get_ref()).map_err(|error| (mtpd_at, Rule::Duration(error)))?;
    let depends_on = raw.depends_on.into_iter().map(Spanned::into_inner).collect();
    let (description, owner, impacts) = (raw.description, raw.owner, raw.impacts);
    let asset = Asset { name: name.clone(), description, owner, class, impacts, mtpd_ms, mbco, depends_on, targets };
    for disruption in Disruption::ALL {
        if bia.asset_target(&asset, disruption).rto_ms > mtpd_ms {
            return Err((mtpd_at, Rule::Mtpd(boxed(), disruption)));
        }
    }
    Ok(asset)
}

fn is_as_strict(target: &Target, other: &Target) -> bool {
    target.rto_ms <= other.rto_ms && target.rpo_ms <= other.rpo_ms && target.rpo_remote_ms <= other.rpo_remote_ms
}

impl fmt::Display for BiaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.rule)
    }
}

impl std::error::Error for BiaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.rule)
    }
}
