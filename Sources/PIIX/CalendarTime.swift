// SPDX-License-Identifier: Apache-2.0

/// A date and time of the Gregorian calendar, without a zone.
struct CalendarTime: Equatable {
  var year: Int
  var month: Int
  var day: Int
  var hour: Int
  var minute: Int
  var second: Int
  /// 1 for Sunday to 7 for Saturday, as the clock chip counts.
  var weekday: Int

  /// The latest time that is computed: the end of the year 9999, in Unix seconds.
  static let lastSecond: Int64 = 253_402_300_799

  /// Splits Unix seconds; times before 1970 or after 9999 are moved to those ends.
  init(unixSeconds: Int64) {
    let seconds = max(0, min(unixSeconds, Self.lastSecond))
    let days = Int(seconds / 86_400)
    let rest = Int(seconds % 86_400)
    hour = rest / 3600
    minute = rest / 60 % 60
    second = rest % 60
    weekday = (days + 4) % 7 + 1  // 1 January 1970 was a Thursday
    // Years that begin in March put the leap day last: 153 days are five months.
    let shifted = days + 719_468
    let era = shifted / 146_097
    let dayOfEra = shifted % 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let marchMonth = (5 * dayOfYear + 2) / 153
    day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
    month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
    year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  }

  /// Joins fields, each brought into its range first; the weekday is worked out.
  init(year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int) {
    self.init(
      unixSeconds: Self.unixSeconds(
        year: year, month: month, day: day, hour: hour, minute: minute, second: second))
  }

  /// Unix seconds of fields, each brought into its range first.
  static func unixSeconds(
    year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int
  ) -> Int64 {
    let month = max(1, min(month, 12))
    let year = max(1970, min(year, 9999)) - (month <= 2 ? 1 : 0)
    let day = max(1, min(day, 31))
    let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
    let yearOfEra = year % 400
    let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
    let days = Int64(year / 400 * 146_097 + dayOfEra - 719_468)
    let time =
      max(0, min(hour, 23)) * 3600 + max(0, min(minute, 59)) * 60 + max(0, min(second, 59))
    return max(0, min(days * 86_400 + Int64(time), lastSecond))
  }
}
