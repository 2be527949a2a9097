"""google-api-python-client and google-auth walk the simulated Reports API."""

import json

import google_auth_httplib2
import httplib2
from google.auth.exceptions import RefreshError
from google.oauth2 import credentials as user
from google.oauth2 import service_account
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from schema import Document
from services import TestCase, read

SCOPE = "https://www.googleapis.com/auth/admin.reports.audit.readonly"
REPORTS = Document("admin.reports_v1")
# Small, so that applications have several pages.
PAGE_ITEMS = 25
# Above this many filter queries a minute the service refuses.
FILTER_QUERIES_A_MINUTE = 250


def reports(services, credentials):
    """The client, of the discovery document that it brings."""
    http = google_auth_httplib2.AuthorizedHttp(
        credentials, http=httplib2.Http(ca_certs=services.ca_file)
    )
    return build(
        "admin",
        "reports_v1",
        http=http,
        static_discovery=True,
        client_options={"api_endpoint": services.google["url"]},
    )


def delegated(services, subject=None, scope=SCOPE, **changes):
    """Credentials of the service account on behalf of an administrator."""
    key = json.loads(read(services.google["service_account_file"])) | changes
    credentials = service_account.Credentials.from_service_account_info(key, scopes=[scope])
    return credentials.with_subject(subject or services.admin)


def installed(services, **changes):
    """Credentials of an installed application: a refresh token, and no access token yet."""
    values = {
        "refresh_token": read(services.google["refresh_token_file"]),
        "client_id": services.google["installed_client_id"],
        "client_secret": read(services.google["installed_client_secret_file"]),
        "token_uri": f"{services.google['url']}/token",
        "scopes": [SCOPE],
    }
    return user.Credentials(None, **(values | changes))


def identity(item):
    """What the answer sheet calls an activity's id."""
    part = item["id"]
    return f"{part['time']}/{part['uniqueQualifier']}/{part['applicationName']}"


def walk(client, **parameters):
    """All activities by list_next, and the pages they came on."""
    activities = client.activities()
    request = activities.list(userKey="all", maxResults=PAGE_ITEMS, **parameters)
    items, pages = [], []
    while request is not None:
        page = request.execute()
        pages.append(page)
        items.extend(page.get("items", []))
        request = activities.list_next(request, page)
    return items, pages


class Activities(TestCase):
    def check_walk(self, credentials):
        client = reports(self.services, credentials)
        sheet = self.services.records_of("google_workspace/")
        self.assertGreaterEqual(len(sheet), 8, "applications with activities")
        several_pages = 0
        for application, rows in sheet.items():
            with self.subTest(application):
                items, pages = walk(client, applicationName=application)
                times = [item["id"]["time"] for item in items]
                self.assertEqual(times, sorted(times, reverse=True), "newest first")
                # Activities of the same millisecond may come in either order.
                key = lambda row: (row[0], json.dumps(row[1], sort_keys=True))
                want = sorted(((row[0], row[2]) for row in rows), key=key)
                got = sorted(((identity(item), item) for item in items), key=key)
                self.assertEqual(len(got), len(want))
                self.assertEqual(got, want)
                self.assertEqual(len(pages), -(-len(rows) // PAGE_ITEMS))
                several_pages += len(pages) > 2
        self.assertGreaterEqual(several_pages, 3, "walks over more than two pages")

    def test_a_service_account_with_a_subject_gets_what_the_sheet_says(self):
        self.check_walk(delegated(self.services))

    def test_a_refresh_token_gets_the_same(self):
        credentials = installed(self.services)
        self.check_walk(credentials)
        self.assertTrue(credentials.valid, "the token's life was understood")

    def test_a_window_holds_its_own_activities_and_no_others(self):
        client = reports(self.services, delegated(self.services))
        rows = self.services.sheet["google_workspace/drive"]
        first, last = rows[len(rows) // 3][2], rows[2 * len(rows) // 3][2]
        start, end = first["id"]["time"], last["id"]["time"]
        items, _ = walk(client, applicationName="drive", startTime=start, endTime=end)
        want = sorted(row[0] for row in rows if start <= row[2]["id"]["time"] <= end)
        self.assertEqual(sorted(map(identity, items)), want)

    def test_filters_of_user_event_and_address_are_those_of_the_service(self):
        client = reports(self.services, delegated(self.services))
        rows = [row[2] for row in self.services.sheet["google_workspace/drive"]]
        user = rows[0]["actor"]["email"]
        request = client.activities().list(userKey=user, applicationName="drive")
        got = {identity(item) for item in request.execute().get("items", [])}
        want = {identity(row) for row in rows if row["actor"].get("email") == user}
        self.assertEqual(got, want)
        name = rows[0]["events"][0]["name"]
        items, _ = walk(client, applicationName="drive", eventName=name)
        want = {
            identity(row)
            for row in rows
            if name in (event["name"] for event in row["events"])
        }
        self.assertEqual({identity(item) for item in items}, want)

    def test_every_application_of_the_discovery_document_is_known(self):
        client = reports(self.services, delegated(self.services))
        names = REPORTS.method("activities", "list")["parameters"]["applicationName"]["enum"]
        self.assertGreater(len(names), 30)
        # gmail wants both ends of the window.
        start = self.services.sheet["google_workspace/drive"][0][2]["id"]["time"]
        end = self.services.sheet["google_workspace/drive"][-1][2]["id"]["time"]
        for name in names:
            with self.subTest(name):
                request = client.activities().list(
                    userKey="all", applicationName=name, startTime=start, endTime=end
                )
                self.assertIn("kind", request.execute())


class Schemas(TestCase):
    """Replies hold what the discovery document says, and nothing it does not know."""

    def test_every_page_is_an_activities_reply(self):
        client = reports(self.services, delegated(self.services))
        checked = 0
        for application in self.services.records_of("google_workspace/"):
            items, pages = walk(client, applicationName=application)
            for page in pages:
                self.assertEqual(REPORTS.problems("Activities", page), [], application)
                self.assertEqual(page["kind"], "admin#reports#activities")
                self.assertTrue(page["etag"])
            for item in items:
                self.assertEqual(item["kind"], "admin#reports#activity")
                self.assertEqual(item["id"]["applicationName"], application)
                self.assertTrue(item["events"])
            checked += len(items)
        self.assertGreater(checked, 500)

    def test_a_reply_without_activities_has_no_items(self):
        client = reports(self.services, delegated(self.services))
        request = client.activities().list(userKey="all", applicationName="vault")
        page = request.execute()
        self.assertNotIn("items", page)
        self.assertEqual(REPORTS.problems("Activities", page), [])

    def test_the_check_itself_finds_what_is_wrong(self):
        for value, problem in (
            ({"itemz": []}, "Activities.itemz: unknown member"),
            ({"items": [{"id": {"uniqueQualifier": 7}}]}, "uniqueQualifier: not a string int64: 7"),
            ({"items": [{"id": {"time": "1700000000"}}]}, "time: not a string date-time"),
            ({"items": [{"events": {}}]}, "events: not an array"),
            ({"items": [{"isAgenticAction": "no"}]}, "isAgenticAction: not a boolean"),
        ):
            (found,) = REPORTS.problems("Activities", value)
            self.assertIn(problem, found)


class Refusals(TestCase):
    """Errors are what the client library takes them for."""

    def refused(self, request):
        """The error as the library understood it."""
        with self.assertRaises(HttpError) as caught:
            request.execute()
        error = caught.exception
        body = json.loads(error.content)
        self.assertEqual(set(body), {"error"})
        # What Google's errors hold: https://cloud.google.com/apis/design/errors, with the list of
        # the older JSON errors.
        self.assertEqual(set(body["error"]), {"code", "message", "status", "errors"})
        self.assertEqual(body["error"]["code"], error.status_code)
        self.assertEqual(body["error"]["message"], error.reason)
        self.assertEqual(error.error_details, body["error"]["errors"])
        (detail,) = error.error_details
        self.assertEqual(set(detail), {"domain", "reason", "message"})
        return error.status_code, detail["reason"], body["error"]["status"]

    def list(self, credentials=None, **parameters):
        client = reports(self.services, credentials or delegated(self.services))
        return client.activities().list(
            **({"userKey": "all", "applicationName": "drive"} | parameters)
        )

    def test_a_window_the_wrong_way_round(self):
        request = self.list(startTime="2026-05-02T00:00:00Z", endTime="2026-05-01T00:00:00Z")
        self.assertEqual(self.refused(request), (400, "invalid", "INVALID_ARGUMENT"))

    def test_a_page_token_of_another_walk(self):
        page = self.list(maxResults=1).execute()
        request = self.list(maxResults=2, pageToken=page["nextPageToken"])
        self.assertEqual(self.refused(request), (400, "invalid", "INVALID_ARGUMENT"))

    def test_a_subject_who_is_no_administrator(self):
        request = self.list(delegated(self.services, subject=self.services.people[1]))
        self.assertEqual(self.refused(request), (401, "authError", "UNAUTHENTICATED"))

    def test_a_token_nobody_issued(self):
        credentials = user.Credentials("ya29.invented")
        credentials.refresh = lambda request: None
        request = self.list(credentials)
        self.assertEqual(self.refused(request), (401, "authError", "UNAUTHENTICATED"))

    def test_the_quota_of_filter_queries(self):
        request = self.list(eventName="view", maxResults=1)
        with self.assertRaises(HttpError) as caught:
            for _ in range(2 * FILTER_QUERIES_A_MINUTE + 1):
                request.execute()
        self.assertEqual(caught.exception.status_code, 403)
        reason = caught.exception.error_details[0]["reason"]
        self.assertEqual(reason, "rateLimitExceeded")
        # Queries without a filter have another quota.
        self.list(maxResults=1).execute()

    def refused_token(self, credentials):
        with self.assertRaises(RefreshError) as caught:
            self.list(credentials).execute()
        _, body = caught.exception.args
        return body["error"]

    def test_a_scope_that_is_not_delegated(self):
        credentials = delegated(self.services, scope=f"{SCOPE}.more")
        self.assertEqual(self.refused_token(credentials), "unauthorized_client")

    def test_a_subject_nobody_knows(self):
        credentials = delegated(self.services, subject="nobody@elsewhere.example")
        self.assertEqual(self.refused_token(credentials), "invalid_grant")

    def test_a_key_that_is_not_the_accounts(self):
        other = read(self.services.microsoft["private_key_file"])
        credentials = delegated(self.services, private_key=other)
        self.assertEqual(self.refused_token(credentials), "invalid_grant")

    def test_a_refresh_token_that_is_dead(self):
        credentials = installed(self.services, refresh_token="1//of-another-world")
        self.assertEqual(self.refused_token(credentials), "invalid_grant")

    def test_an_installed_applications_secret_that_is_wrong(self):
        credentials = installed(self.services, client_secret="GOCSPX-wrong")
        self.assertEqual(self.refused_token(credentials), "invalid_client")
