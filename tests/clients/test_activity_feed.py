"""A plain HTTP client with msal's token walks the Management Activity API as its reference says."""

import datetime
import json

import requests

from services import TestCase
from test_microsoft_login import SCOPE, application, secret

# Members of an element of the listing, of a subscription.
CONTENT_MEMBERS = {"contentType", "contentId", "contentUri", "contentCreated", "contentExpiration"}
SUBSCRIPTION_MEMBERS = {"contentType", "status", "webhook"}
# How far back the service keeps content, and the longest window.
DAYS_KEPT = 7


class Feed(TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        client = application(cls.services, secret(cls.services))
        token = client.acquire_token_for_client([SCOPE])["access_token"]
        microsoft = cls.services.microsoft
        cls.tenant_id = microsoft["tenant_id"]
        cls.root = f"{microsoft['url']}/api/v1.0/{cls.tenant_id}/activity/feed"
        cls.session = requests.Session()
        cls.session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method, path, **parameters):
        url = path if path.startswith("https://") else f"{self.root}/{path}"
        parameters["PublisherIdentifier"] = self.tenant_id
        return self.session.request(method, url, params=parameters, timeout=10)

    def started(self, content_type):
        """Starts a subscription, which may have been started before."""
        reply = self.ask("POST", "subscriptions/start", contentType=content_type)
        if reply.status_code != 200:
            self.assertIn(reply.json()["error"]["code"], ("AF20024", "AF429"))
            return
        subscription = reply.json()
        self.assertEqual(set(subscription), SUBSCRIPTION_MEMBERS)
        self.assertEqual(subscription["contentType"], content_type)
        self.assertEqual(subscription["status"], "enabled")

    def days(self):
        """The windows of what is kept: each a day, the oldest starting just inside."""
        now = datetime.datetime.now(datetime.timezone.utc)
        end = now.replace(microsecond=0)
        for days in range(DAYS_KEPT):
            start = end - datetime.timedelta(days=1)
            yield start, end
            end = start

    def content(self, content_type):
        """All elements of the listing, and how many pages they came on."""
        elements, pages = [], 0
        for start, end in self.days():
            form = "%Y-%m-%dT%H:%M:%S"
            reply = self.ask(
                "GET",
                "subscriptions/content",
                contentType=content_type,
                startTime=start.strftime(form),
                endTime=end.strftime(form),
            )
            while True:
                self.assertEqual(reply.status_code, 200, reply.text)
                pages += 1
                elements.extend(reply.json())
                following = reply.headers.get("NextPageUri")
                if following is None:
                    break
                reply = self.ask("GET", following)
        return elements, pages

    def test_every_listed_blob_is_there_and_all_of_them_are_the_sheet(self):
        sheet = self.services.records_of("office365/")
        self.assertEqual(len(sheet), 5, "content types with records")
        most_pages = 0
        for content_type, rows in sheet.items():
            with self.subTest(content_type):
                self.started(content_type)
                elements, pages = self.content(content_type)
                most_pages = max(most_pages, pages)
                records = {}
                for element in elements:
                    self.assertEqual(set(element), CONTENT_MEMBERS)
                    self.assertEqual(element["contentType"], content_type)
                    reply = self.ask("GET", element["contentUri"])
                    self.assertEqual(reply.status_code, 200, reply.text)
                    records |= {record["Id"]: record for record in reply.json()}
                want = {row[0]: row[2] for row in rows}
                self.assertEqual(sorted(records), sorted(want))
                self.assertEqual(records, want)
        self.assertGreater(most_pages, DAYS_KEPT, "a day with several pages")

    def test_the_started_subscriptions_are_listed(self):
        self.started("Audit.General")
        reply = self.ask("GET", "subscriptions/list")
        self.assertEqual(reply.status_code, 200)
        (general,) = [row for row in reply.json() if row["contentType"] == "Audit.General"]
        self.assertEqual(set(general), SUBSCRIPTION_MEMBERS)
        self.assertEqual(general["status"], "enabled")

    def refused(self, reply):
        body = reply.json()
        self.assertEqual(set(body), {"error"})
        self.assertEqual(set(body["error"]), {"code", "message"})
        return reply.status_code, body["error"]["code"]

    def test_what_the_reference_lists_as_errors(self):
        listing = "subscriptions/content"
        self.started("Audit.General")
        general = {"contentType": "Audit.General"}
        two_days = {"startTime": "2026-05-01", "endTime": "2026-05-03"}
        for reply, want in (
            (self.ask("GET", listing), (400, "AF20001")),
            (self.ask("GET", listing, contentType="Audit.Nothing"), (400, "AF20020")),
            (self.ask("GET", listing, **general, startTime="2026-05-01"), (400, "AF20030")),
            (self.ask("GET", listing, **general, **two_days), (400, "AF20030")),
            (self.ask("GET", "audit/gone$audit_general"), (404, "AF20050")),
        ):
            with self.subTest(want):
                self.assertEqual(self.refused(reply), want)

    def test_no_token_and_a_token_of_another_audience(self):
        url = f"{self.root}/subscriptions/list"
        self.assertEqual(requests.get(url, timeout=10).status_code, 401)
        bad = {"Authorization": "Bearer " + json.dumps("nothing")}
        self.assertEqual(requests.get(url, headers=bad, timeout=10).status_code, 401)
