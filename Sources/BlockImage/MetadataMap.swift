// SPDX-License-Identifier: Apache-2.0

/// The clusters of the file that hold metadata, for the checks before each write.
///
/// These are QEMU's classes "constant" and "cached": the header, the refcount table and
/// blocks, the active L1 and L2 tables, the snapshot table, the snapshots' L1 tables, the
/// bitmap directory and the LUKS header. Tables that may be long are kept as ranges, so that the memory is bounded
/// by the number of tables.
struct MetadataMap {
  /// In ascending order; no two overlap.
  private var ranges: [Range<UInt64>] = []
  private var singles: Set<UInt64> = []

  /// Whether a cluster holds metadata.
  func contains(_ cluster: UInt64) -> Bool {
    singles.contains(cluster) || isInRange(cluster)
  }

  private func isInRange(_ cluster: UInt64) -> Bool {
    let index = place(of: cluster)
    return index > 0 && ranges[index - 1].contains(cluster)
  }

  /// Returns how many ranges start at or before `cluster`.
  private func place(of cluster: UInt64) -> Int {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].lowerBound <= cluster { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Notes an L2 table or a refcount block; returns whether the cluster was free.
  @discardableResult
  mutating func insert(_ cluster: UInt64) -> Bool {
    !isInRange(cluster) && singles.insert(cluster).inserted
  }

  /// Forgets an L2 table or a refcount block.
  mutating func remove(_ cluster: UInt64) { singles.remove(cluster) }

  /// Notes a table of several clusters; returns whether all of them were free.
  @discardableResult
  mutating func add(_ range: Range<UInt64>) -> Bool {
    guard !range.isEmpty else { return true }
    let index = place(of: range.lowerBound)
    guard index == 0 || ranges[index - 1].upperBound <= range.lowerBound,
      index == ranges.count || range.upperBound <= ranges[index].lowerBound
    else { return false }
    // Tables of several clusters are noted first or are made in clusters found free.
    ranges.insert(range, at: index)
    return true
  }

  /// Forgets a table that was added.
  mutating func drop(_ range: Range<UInt64>) {
    guard let index = ranges.firstIndex(of: range) else { return }
    ranges.remove(at: index)
  }

  /// Takes many ranges at once; returns the index of one that overlaps another, or `nil`.
  mutating func addAll(_ all: [Range<UInt64>]) -> Int? {
    let order = all.indices.filter { !all[$0].isEmpty }
      .sorted { (all[$0].lowerBound, $0) < (all[$1].lowerBound, $1) }
    ranges = order.map { all[$0] }
    for place in ranges.indices.dropFirst()
    where ranges[place - 1].upperBound > ranges[place].lowerBound {
      return max(order[place], order[place - 1])
    }
    return nil
  }
}
