// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor

/// QMP's jobs: what was begun by a command, until a client dismisses it.
///
/// One thread uses it.
public final class JobList {
  private struct Job {
    var id: String
    var type: String
    var status: String
    var error: String?
  }

  private var jobs: [Job] = []

  public init() {}

  /// The state and the job's id out of the detail of an event of kind `job`.
  static func words(_ detail: String) -> (status: String, id: String) {
    let words = detail.split(separator: " ", maxSplits: 1).map(String.init)
    return (words.first ?? "", words.count > 1 ? words[1] : "")
  }

  /// The jobs as `query-jobs` tells them.
  var entries: JSONValue {
    .array(
      jobs.map { job in
        var entry: [String: JSONValue] = [
          "id": .string(job.id), "type": .string(job.type), "status": .string(job.status),
          "current-progress": job.status == "concluded" ? 1 : 0, "total-progress": 1,
        ]
        if let error = job.error { entry["error"] = .string(error) }
        return .object(entry)
      })
  }

  /// Begins a job.
  func begin(_ id: String, _ type: String, _ machine: any MachineAccess) throws(CommandError) {
    let isGood =
      id.unicodeScalars.first.map { $0.isASCII && $0.properties.isAlphabetic } ?? false
      && id.unicodeScalars.allSatisfy {
        $0.isASCII
          && ($0.properties.isAlphabetic || ("0"..."9").contains($0)
            || "-._".unicodeScalars.contains($0))
      } && id.utf8.count <= SnapshotRequest.longestJob
    guard isGood else { throw CommandError("Invalid job ID '\(id)'") }
    guard !jobs.contains(where: { $0.id == id }) else {
      throw CommandError("Job ID '\(id)' already in use")
    }
    guard jobs.count < 64 else { throw CommandError("there are 64 jobs; dismiss some") }
    jobs.append(Job(id: id, type: type, status: "null"))
    change(id, "created", machine)
    change(id, "running", machine)
  }

  /// Ends a job: `detail` is its id and, if it has failed, a space and the reason.
  public func end(_ detail: String, _ machine: any MachineAccess) {
    let words = detail.split(separator: " ", maxSplits: 1).map(String.init)
    guard let id = words.first,
      let index = jobs.firstIndex(where: { $0.id == id && $0.status == "running" })
    else { return }
    if words.count > 1 {
      jobs[index].error = VisibleText.escape(words[1])
      change(id, "aborting", machine)
    } else {
      change(id, "waiting", machine)
      change(id, "pending", machine)
    }
    change(id, "concluded", machine)
  }

  func dismiss(_ id: String, _ machine: any MachineAccess) throws(CommandError) {
    guard let index = jobs.firstIndex(where: { $0.id == id }) else {
      throw CommandError("Job not found")
    }
    guard jobs[index].status == "concluded" else {
      throw CommandError(
        "Job '\(id)' in state '\(jobs[index].status)' cannot accept command verb 'dismiss'")
    }
    change(id, "null", machine)
    jobs.remove(at: index)
  }

  private func change(_ id: String, _ status: String, _ machine: any MachineAccess) {
    guard let index = jobs.firstIndex(where: { $0.id == id }) else { return }
    jobs[index].status = status
    machine.post(EventMessage(.job, detail: "\(status) \(id)"))
  }
}
