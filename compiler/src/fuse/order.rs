//! A topological order of clusters that stays valid while clusters merge (after Pearce & Kelly 2006): a merge moves only
//! the clusters between the two that one of them reaches or that reach the other.

pub struct Order {
    /// Place of each cluster; places are distinct, not dense.
    place: Vec<u32>,
}

impl Order {
    pub fn new(place: Vec<u32>) -> Self {
        Order { place }
    }

    pub fn at(&self, cluster: u32) -> u32 {
        self.place[cluster as usize]
    }

    /// `a` before `b` become one, named `a`. `forward` are the clusters between them that `a` leads to, `backward`
    /// those that lead to `b`; no cluster is in both, or the merge would close a cycle.
    pub fn merge(&mut self, a: u32, b: u32, mut forward: Vec<u32>, mut backward: Vec<u32>) {
        forward.sort_unstable_by_key(|&c| self.at(c));
        backward.sort_unstable_by_key(|&c| self.at(c));
        let mut places: Vec<u32> =
            forward.iter().chain(&backward).chain(&[a, b]).map(|&c| self.at(c)).collect();
        places.sort_unstable();
        // What leads to b, then the merged cluster, then what a leads to; one place stays empty.
        let sequence = backward.iter().chain(std::iter::once(&a)).chain(&forward);
        for (&c, &p) in sequence.zip(&places) {
            self.place[c as usize] = p;
        }
    }
}
