// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// One client of the metrics' socket: a request in HTTP/1.0 or 1.1, its answer, and the end.
public struct MetricsSession {
  private let machine: any MachineAccess
  private var request: [UInt8] = []
  /// Whether the answer was given, and nothing more is said.
  public private(set) var isOver = false

  /// The longest request, with its fields.
  static let longest = 8192

  public init(_ machine: any MachineAccess) { self.machine = machine }

  /// Takes what the client has sent; returns what it is to be sent.
  public mutating func take(_ bytes: [UInt8]) -> String {
    guard !isOver else { return "" }
    // Empty lines before the request are passed over (RFC 9112, 2.2).
    request += request.isEmpty ? bytes.drop { $0 == 0x0D || $0 == 0x0A } : bytes[...]
    guard let end = Self.end(of: request) else {
      guard request.count > Self.longest else { return "" }
      return finish("431 Request Header Fields Too Large", "the request is too long\n")
    }
    let head = request[..<end]
    guard head.count <= Self.longest else {
      return finish("431 Request Header Fields Too Large", "the request is too long\n")
    }
    let line = String(decoding: head.prefix { $0 != 0x0D && $0 != 0x0A }, as: UTF8.self)
    let words = line.split(separator: " ", omittingEmptySubsequences: false)
    guard words.count == 3, words[2] == "HTTP/1.1" || words[2] == "HTTP/1.0" else {
      return finish("400 Bad Request", "this is no request of HTTP/1.1\n")
    }
    guard words[0] == "GET" || words[0] == "HEAD" else {
      return finish(
        "405 Method Not Allowed", "accepted: GET, HEAD\n", fields: "Allow: GET, HEAD\r\n")
    }
    let isHead = words[0] == "HEAD"
    let path = words[1].prefix { $0 != "?" }
    guard path == "/metrics" || path == "/" else {
      return finish("404 Not Found", "accepted: /metrics\n", isHead: isHead)
    }
    do throws(CommandError) {
      let metrics: MetricsReply = try machine.ask(.metrics, Empty())
      // What the launcher knows is left out when it does not answer.
      let text = MetricsText.text(
        metrics, try? machine.processes(), machine.counts,
        drives: machine.settings.drives.map { Int($0.slot) }.sorted(),
        ports: machine.settings.ports.count)
      return finish("200 OK", text, type: MetricsText.contentType, isHead: isHead)
    } catch {
      return finish("503 Service Unavailable", "\(error)\n", isHead: isHead)
    }
  }

  /// Where the empty line after the fields begins; line ends are CR LF, or LF alone.
  private static func end(of request: [UInt8]) -> Int? {
    var start = 0
    for (place, byte) in request.enumerated() where byte == 0x0A {
      let length = place - start
      if length == 0 || length == 1 && request[start] == 0x0D { return start }
      start = place + 1
    }
    return nil
  }

  private mutating func finish(
    _ status: String, _ text: String, type: String = "text/plain; charset=utf-8",
    fields: String = "", isHead: Bool = false
  ) -> String {
    isOver = true
    request = []
    return "HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nContent-Length: \(text.utf8.count)\r\n"
      + "\(fields)Connection: close\r\n\r\n" + (isHead ? "" : text)
  }
}
