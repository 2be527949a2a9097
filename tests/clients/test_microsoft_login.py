"""msal and azure-identity get tokens from the simulated login host."""

import hashlib
import json
import ssl

import msal
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CertificateCredential, ClientSecretCredential

from services import TestCase, read

SCOPE = "https://manage.office.com/.default"
WRONG_SECRET = 7000215
UNKNOWN_APPLICATION = 700016
BAD_SIGNATURE = 700027


def application(services, credential, client_id=None, tenant=None):
    """msal's client. Instance discovery would ask the real login.microsoftonline.com."""
    microsoft = services.microsoft
    return msal.ConfidentialClientApplication(
        client_id or microsoft["client_id"],
        client_credential=credential,
        authority=f"{microsoft['url']}/{tenant or microsoft['tenant_id']}",
        instance_discovery=False,
    )


def secret(services):
    return read(services.microsoft["client_secret_file"])


def certificate(services):
    """As msal takes it by default: it works out the SHA-256 thumbprint, and signs by PS256."""
    return {
        "private_key": read(services.microsoft["private_key_file"]),
        "public_certificate": read(services.microsoft["certificate_file"]),
    }


def certificate_by_sha1(services):
    """As before: a SHA-1 thumbprint (x5t), and RS256."""
    der = ssl.PEM_cert_to_DER_cert(read(services.microsoft["certificate_file"]))
    return {
        "private_key": read(services.microsoft["private_key_file"]),
        "thumbprint": hashlib.sha1(der, usedforsecurity=False).hexdigest(),
    }


def lists_subscriptions(services, token):
    """Whether the API takes the token."""
    microsoft = services.microsoft
    url = f"{microsoft['url']}/api/v1.0/{microsoft['tenant_id']}/activity/feed/subscriptions/list"
    reply = requests.get(
        url,
        params={"PublisherIdentifier": microsoft["tenant_id"]},
        headers={"Authorization": f"Bearer {token}"},
        timeout=10,
    )
    return reply.status_code == 200


class Msal(TestCase):
    def check(self, credential):
        reply = application(self.services, credential).acquire_token_for_client([SCOPE])
        self.assertNotIn("error", reply)
        self.assertEqual(reply["token_type"], "Bearer")
        self.assertGreater(reply["expires_in"], 3000)
        self.assertTrue(lists_subscriptions(self.services, reply["access_token"]))

    def test_a_client_secret(self):
        self.check(secret(self.services))

    def test_a_certificate_by_ps256_and_x5t_s256(self):
        self.check(certificate(self.services))

    def test_a_certificate_by_rs256_and_x5t(self):
        self.check(certificate_by_sha1(self.services))

    def test_a_second_token_comes_from_its_cache(self):
        client = application(self.services, secret(self.services))
        first = client.acquire_token_for_client([SCOPE])
        again = client.acquire_token_for_client([SCOPE])
        self.assertEqual(first["token_source"], "identity_provider")
        self.assertEqual(again["token_source"], "cache")
        self.assertEqual(again["access_token"], first["access_token"])

    def refused(self, client):
        reply = client.acquire_token_for_client([SCOPE])
        self.assertNotIn("access_token", reply)
        (code,) = reply["error_codes"]
        self.assertTrue(reply["error_description"].startswith(f"AADSTS{code}: "), reply)
        for name in ("timestamp", "trace_id", "correlation_id", "error_uri"):
            self.assertIn(name, reply)
        return reply["error"], code

    def test_a_wrong_secret(self):
        client = application(self.services, "not-the-secret")
        self.assertEqual(self.refused(client), ("invalid_client", WRONG_SECRET))

    def test_an_application_nobody_knows(self):
        unknown = "00000000-0000-4000-8000-000000000000"
        client = application(self.services, secret(self.services), client_id=unknown)
        self.assertEqual(self.refused(client), ("unauthorized_client", UNKNOWN_APPLICATION))

    def test_a_key_that_is_not_the_certificates(self):
        other = json.loads(read(self.services.google["service_account_file"]))["private_key"]
        credential = certificate(self.services) | {"private_key": other}
        client = application(self.services, credential)
        self.assertEqual(self.refused(client), ("invalid_client", BAD_SIGNATURE))

    def test_a_tenant_nobody_knows_has_no_authority(self):
        unknown = "00000000-0000-4000-8000-000000000000"
        with self.assertRaisesRegex(ValueError, "tenant name or GUID"):
            application(self.services, secret(self.services), tenant=unknown)


class AzureIdentity(TestCase):
    def check(self, credential):
        token = credential.get_token(SCOPE)
        self.assertTrue(lists_subscriptions(self.services, token.token))

    def settings(self):
        return {"authority": self.services.microsoft["url"], "disable_instance_discovery": True}

    def identity(self):
        microsoft = self.services.microsoft
        return microsoft["tenant_id"], microsoft["client_id"]

    def test_a_client_secret(self):
        credential = ClientSecretCredential(
            *self.identity(), secret(self.services), **self.settings()
        )
        self.check(credential)

    def test_a_certificate(self):
        path = self.services.microsoft["certificate_and_key_file"]
        self.check(CertificateCredential(*self.identity(), path, **self.settings()))

    def test_a_certificate_whose_chain_is_sent(self):
        path = self.services.microsoft["certificate_and_key_file"]
        settings = self.settings() | {"send_certificate_chain": True}
        self.check(CertificateCredential(*self.identity(), path, **settings))

    def test_a_wrong_secret(self):
        credential = ClientSecretCredential(
            *self.identity(), "not-the-secret", **self.settings()
        )
        refused = self.assertRaisesRegex(ClientAuthenticationError, f"AADSTS{WRONG_SECRET}")
        with refused, self.assertLogs("azure.identity", "WARNING"):
            credential.get_token(SCOPE)
