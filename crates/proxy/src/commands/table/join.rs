//! How the replies to the parts of one command make one reply.
//! <https://redis.io/docs/latest/develop/reference/command-tips/#response_policy>

/// One of the ways. Except in `OneSucceeded`, an error of a part is the whole command's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Join {
    /// Integers are added.
    Sum,
    /// The smallest integer.
    Min,
    /// The largest integer.
    Max,
    /// Integers, or arrays of them place by place: whether all are true.
    And,
    /// The same: whether one is true.
    Or,
    /// All have succeeded, and say the same: the first reply.
    Succeeded,
    /// One that has succeeded is enough.
    OneSucceeded,
    /// The elements of all arrays, one array after the other.
    Concat,
    /// The same, each element once.
    Union,
    /// Arrays of names and numbers in turn: the numbers of one name are added.
    Counts,
    /// The elements of the arrays, each in the place of the argument that it answers.
    Values,
    /// One of those that are not nil, at random; the second half of the replies says how much each of the first counts.
    Random,
    /// In a way of its own that no tip tells.
    Unknown,
}
