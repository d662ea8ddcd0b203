//! The prefixes of all groups as one array of nodes. A node's children lie side by side in the order of their symbols, so that
//! a bit map and one place name all of them; the nodes of one depth lie together, which keeps the upper ones in the cache.

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::number::{Alphabet, symbol_at};

/// No rule.
pub(crate) const NONE: u32 = u32::MAX;
/// Marks, within a node, rules of which some hold at times only: whoever finds others need not look at them, which saves the
/// dearest miss of a lookup.
const TIMED: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
struct Node {
    /// A bit for each symbol that goes on.
    children: u16,
    /// Where the children begin.
    base: u32,
    /// The first rule of exactly this prefix, with [`TIMED`].
    rules: u32,
}

impl Node {
    const EMPTY: Self = Self { children: 0, base: 0, rules: NONE };
}

/// One rule of a group, by the prefix that it is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SortKey {
    pub(crate) packed: u128,
    pub(crate) group: u32,
    /// Stands here too, so that sorting looks at nothing else.
    pub(crate) priority: i32,
    pub(crate) rule: u32,
}

/// What a walk met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    /// First rules of the prefixes that fit, the shortest first.
    pub(crate) found: SmallVec<[u32; 8]>,
    /// Whether the last of them is the whole number.
    pub(crate) whole: bool,
    /// The place of a character that no prefix can have.
    pub(crate) unexpected: Option<usize>,
}

/// The nodes behind every row of as many digits, so that a walk need not pass those above. Where no node is, or one without
/// rules, what was found above it stands.
#[derive(Debug)]
struct FirstDigits {
    digits: u32,
    starts: Box<[Node]>,
}

/// Prefixes of a group that are worth an index of their first digits, per entry.
const KEYS_PER_START: usize = 8;
const MOST_FIRST_DIGITS: u32 = 5;

#[derive(Debug, Default)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
    /// By their roots, for groups of many prefixes.
    first_digits: HashMap<u32, FirstDigits>,
}

impl Trie {
    /// Adds the prefixes of one group, sorted, whose rules begin at `first`; returns where its walks begin.
    pub(crate) fn add(&mut self, alphabet: &Alphabet, keys: &[SortKey], first: usize, is_timed: impl Fn(usize) -> bool) -> u32 {
        let root = self.add_nodes(keys, first, is_timed);
        let digits = (1..=MOST_FIRST_DIGITS).rev().find(|digits| keys.len() / KEYS_PER_START >= 10_usize.pow(*digits));
        if let Some(digits) = digits {
            let start = |number: u32| {
                let text = format!("{number:0width$}", width = digits as usize);
                self.nodes.get(root as usize).map_or(Node::EMPTY, |root| self.descend(*root, alphabet, text.as_bytes()))
            };
            let starts = (0..10_u32.pow(digits)).map(start).collect();
            self.first_digits.insert(root, FirstDigits { digits, starts });
        }
        root
    }

    fn add_nodes(&mut self, keys: &[SortKey], first: usize, is_timed: impl Fn(usize) -> bool) -> u32 {
        let root = self.nodes.len();
        self.nodes.reserve_exact(nodes_of(keys));
        self.nodes.push(Node::EMPTY);
        // Node and the keys below it, depth by depth.
        let mut level = vec![(root as u32, 0, keys.len() as u32)];
        let mut depth = 0;
        while !level.is_empty() {
            let mut next = Vec::new();
            for (node, from, to) in level {
                let (node, mut from, to) = (node as usize, from as usize, to as usize);
                if from < to && symbol_at(keys[from].packed, depth) == 0 {
                    let count = keys[from..to].iter().take_while(|key| symbol_at(key.packed, depth) == 0).count();
                    let timed = (first + from..first + from + count).any(&is_timed);
                    self.nodes[node].rules = (first + from) as u32 | if timed { TIMED } else { 0 };
                    from += count;
                }
                self.nodes[node].base = self.nodes.len() as u32;
                while from < to {
                    let symbol = symbol_at(keys[from].packed, depth);
                    let same = run(&keys[from..to], |key| symbol_at(key.packed, depth) == symbol);
                    self.nodes[node].children |= 1 << symbol;
                    next.push((self.nodes.len() as u32, from as u32, (from + same) as u32));
                    self.nodes.push(Node::EMPTY);
                    from += same;
                }
            }
            level = next;
            depth += 1;
        }
        root as u32
    }

    /// Goes along `number` from `node` as far as prefixes go; returns where it ends, with the last rules that were met.
    fn descend(&self, mut node: Node, alphabet: &Alphabet, number: &[u8]) -> Node {
        for byte in number {
            let bit = 1 << alphabet.symbol(*byte);
            // No node has a child for symbol 0, which is that of characters that prefixes cannot have.
            if node.children & bit == 0 {
                return Node { children: 0, ..node };
            }
            let Some(child) = self.nodes.get((node.base + (node.children & (bit - 1)).count_ones()) as usize) else { return node };
            node = Node { rules: if child.rules == NONE { node.rules } else { child.rules }, ..*child };
        }
        node
    }

    /// The first rule of the longest prefix that has any; `None` where some of that hold at times only, so that shorter ones may
    /// have to serve, and where there is none.
    pub(crate) fn longest(&self, root: u32, alphabet: &Alphabet, number: &[u8]) -> Option<u32> {
        let (start, rest) = self.start(root, number).or_else(|| Some((self.nodes.get(root as usize)?, number)))?;
        let found = self.descend(*start, alphabet, rest).rules;
        (found & TIMED == 0).then_some(found)
    }

    /// Where the walk of a number begins whose first digits are in the index, and what is left of it then.
    fn start<'a>(&self, root: u32, number: &'a [u8]) -> Option<(&Node, &'a [u8])> {
        let index = self.first_digits.get(&root)?;
        let (first, rest) = number.split_at_checked(index.digits as usize)?;
        let mut place = 0;
        for byte in first {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            place = place * 10 + usize::from(digit);
        }
        Some((index.starts.get(place)?, rest))
    }

    pub(crate) fn bytes(&self) -> usize {
        let starts: usize = self.first_digits.values().map(|index| size_of_val(&*index.starts)).sum();
        self.nodes.capacity() * size_of::<Node>() + starts
    }

    /// Walks along `number` as far as prefixes go.
    pub(crate) fn walk(&self, root: u32, alphabet: &Alphabet, number: &[u8]) -> Walk {
        let mut walk = Walk { found: SmallVec::new(), whole: false, unexpected: None };
        let Some(mut node) = self.nodes.get(root as usize) else { return walk };
        if node.rules != NONE {
            walk.found.push(node.rules & !TIMED);
            walk.whole = number.is_empty();
        }
        for (place, byte) in number.iter().enumerate() {
            let symbol = alphabet.symbol(*byte);
            if symbol == 0 {
                walk.unexpected = Some(place);
                return walk;
            }
            let bit = 1 << symbol;
            if node.children & bit == 0 {
                walk.unexpected = number[place..].iter().position(|byte| alphabet.symbol(*byte) == 0).map(|behind| place + behind);
                return walk;
            }
            let child = node.base + (node.children & (bit - 1)).count_ones();
            let Some(there) = self.nodes.get(child as usize) else { return walk };
            node = there;
            if node.rules != NONE {
                walk.found.push(node.rules & !TIMED);
                walk.whole = place + 1 == number.len();
            }
        }
        walk
    }
}

/// How many nodes these keys need: each what it does not share with the one before, and the root.
/// How many of sorted keys from the first on are alike. In steps that double, since near the root they are many: looking at each
/// on every level is most of the time that a table of a million takes.
fn run(keys: &[SortKey], alike: impl Fn(&SortKey) -> bool) -> usize {
    let mut step = 1;
    while keys.get(step).is_some_and(&alike) {
        step *= 2;
    }
    let (least, most) = (step / 2, step.min(keys.len()));
    least + keys[least..most].partition_point(alike)
}

fn nodes_of(keys: &[SortKey]) -> usize {
    let mut before = 0;
    let mut nodes = 1;
    for key in keys {
        let length = (128 - key.packed.trailing_zeros() as usize).div_ceil(4);
        let shared = ((before ^ key.packed).leading_zeros() / 4) as usize;
        nodes += if key.packed == 0 { 0 } else { length.saturating_sub(shared) };
        before = key.packed;
    }
    nodes
}
