//! What is measured in a turn.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::plot::short;

/// One number of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// CPU time of the contestant for each command.
    CpuUs,
    /// CPU time of what stands behind it, for each command that clients sent.
    UpstreamCpuUs,
    /// Commands a second.
    Throughput,
    /// Commands a second that were due, in an open loop.
    Offered,
    /// Half of the commands (or pipelines) took no longer.
    P50Us,
    /// 99 of 100 took no longer.
    P99Us,
    /// 999 of 1,000 took no longer.
    P999Us,
    /// In an open loop: to 99 of 100 commands the driver itself came no later than this after they were due.
    LateUs,
    /// Memory of the contestant at the end of the turn.
    ResidentMb,
    /// The part of the commands that were answered sooner than the upstream, which is far away, can be reached.
    Hits,
    /// Commands that its upstream did for each that clients sent.
    UpstreamCommands,
    /// Connections that it had to its upstream at the end of the turn.
    UpstreamConnections,
    /// The part of the time in which the contestant's core was used by the contestant.
    CoreBusy,
    /// The part of the time in which the contestant's core was used by anybody else, or was not there: taken by another machine.
    OthersBusy,
    /// The part of the time in which the load's core was used by the driver, the upstream, and the relay to it if it is
    /// far away.
    LoadBusy,
    /// From the start of the process until it accepts a connection.
    ListeningMs,
    /// From the start of the process until it answers a command.
    AnsweringMs,
    /// The size of the program's file.
    ProgramMb,
    /// Connections that were all open, and answered.
    Connections,
    /// What each of them took of the contestant's memory.
    BytesPerConnection,
    /// What each item took of the contestant's memory, beyond its key and its value.
    BytesPerItem,
}

/// The figures of one contestant's part of one round.
pub type Turn = BTreeMap<Figure, f64>;

/// As many digits as a measurement has, and some more.
pub fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().expect("a number was written")
}

impl Figure {
    /// At the head of a column.
    pub fn head(self) -> &'static str {
        match self {
            Self::CpuUs => "CPU µs/cmd",
            Self::UpstreamCpuUs => "upstream CPU µs/cmd",
            Self::Throughput => "commands/s",
            Self::Offered => "due/s",
            Self::P50Us => "p50 µs",
            Self::P99Us => "p99 µs",
            Self::P999Us => "p99.9 µs",
            Self::LateUs => "driver late at p99 µs",
            Self::ResidentMb => "RSS MB",
            Self::Hits => "hits %",
            Self::UpstreamCommands => "upstream cmds/cmd",
            Self::UpstreamConnections => "upstream conns",
            Self::CoreBusy => "its core %",
            Self::OthersBusy => "others on its core %",
            Self::LoadBusy => "load core %",
            Self::ListeningMs => "listening after ms",
            Self::AnsweringMs => "answering after ms",
            Self::ProgramMb => "program MB",
            Self::Connections => "connections",
            Self::BytesPerConnection => "bytes/connection",
            Self::BytesPerItem => "bytes/item beyond key and value",
        }
    }

    /// As a table shows it.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::CoreBusy | Self::OthersBusy | Self::LoadBusy => format!("{:.0}", value * 100.0),
            Self::Hits => format!("{:.1}", value * 100.0),
            Self::UpstreamConnections => format!("{value:.0}"),
            _ => short(value),
        }
    }
}
